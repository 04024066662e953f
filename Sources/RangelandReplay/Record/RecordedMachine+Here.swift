// SPDX-License-Identifier: Apache-2.0
//
// The machine that this program runs on, for the recordings that it makes.

import Glibc
import SystemPackage

extension RecordedMachine {
  /// This machine, and the limits of `process`; nil: of this program, which its children inherit.
  public static func here(limitsOf process: Int32? = nil) -> RecordedMachine {
    var system = utsname()
    uname(&system)
    let kernel = withUnsafePointer(to: &system.release) {
      $0.withMemoryRebound(to: CChar.self, capacity: 65) { String(cString: $0) }
    }
    let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    let memory = sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE))
    var machine = RecordedMachine(
      processor: field("model name", in: contents("/proc/cpuinfo")) ?? "",
      processors: processors > 0 ? processors : nil, memory: memory > 0 ? UInt64(memory) : nil,
      kernel: kernel)
    machine.overcommit = number("/proc/sys/vm/overcommit_memory")
    machine.mapCountLimit = number("/proc/sys/vm/max_map_count")
    let hugePages = contents("/sys/kernel/mm/transparent_hugepage/enabled")
    if let open = hugePages.firstIndex(of: "["), let close = hugePages.firstIndex(of: "]") {
      machine.hugePages = String(hugePages[hugePages.index(after: open)..<close])
    }
    let limits = contents("/proc/\(process.map(String.init) ?? "self")/limits")
    machine.addressSpaceLimit = limit("Max address space", in: limits)
    machine.dataLimit = limit("Max data size", in: limits)
    machine.stackLimit = limit("Max stack size", in: limits)
    machine.lockedLimit = limit("Max locked memory", in: limits)
    return machine
  }

  /// The memory that programs can have now, in bytes; nil where the kernel does not tell.
  public static var availableMemory: UInt64? {
    let value = field("MemAvailable", in: contents("/proc/meminfo")) ?? ""
    return value.split(separator: " ").first.flatMap { UInt64($0) }.map { $0 << 10 }
  }

  /// At most 64 KiB of a file of the kernel's, empty if it cannot be read.
  static func contents(_ path: String, upTo limit: Int = 1 << 16) -> String {
    guard var input = try? InputBytes(path: path), let bytes = try? input.read(upTo: limit) else {
      return ""
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func number(_ path: String) -> Int? {
    Int(contents(path).prefix { $0.isNumber })
  }

  /// The value of the first line `NAME : VALUE`.
  private static func field(_ name: String, in text: String) -> String? {
    for line in text.split(separator: "\n") where line.hasPrefix(name) {
      guard let colon = line.firstIndex(of: ":") else { continue }
      return String(line[line.index(after: colon)...].drop { $0 == " " })
    }
    return nil
  }

  /// The soft limit of a line of `/proc/PID/limits`.
  private static func limit(_ name: String, in text: String) -> Limit {
    for line in text.split(separator: "\n") where line.hasPrefix(name) {
      let word = line.dropFirst(name.count).split(separator: " ").first ?? ""
      if word == "unlimited" { return .unlimited }
      if let bytes = UInt64(word) { return .bytes(bytes) }
    }
    return .unknown
  }
}
