// SPDX-License-Identifier: Apache-2.0
//
// Call chains for people.

extension CallChains {
  /// `frames` without those of the kernel that every chain has: the tracepoint's own, and the way into the kernel.
  public static func telling(_ frames: [Frame]) -> [Frame] {
    frames.filter { frame in
      guard frame.isKernel else { return true }
      return !frame.function.hasPrefix("__mmap_lock_do_trace_")
        && !waysIn.contains(frame.function)
    }
  }

  private static let waysIn: Set<String> = [
    "do_syscall_64", "x64_sys_call", "entry_SYSCALL_64_after_hwframe", "exc_page_fault",
    "asm_exc_page_fault",
  ]

  /// The innermost of the program's functions in one line, `munmap < free < main`; the kernel's where there is none of
  /// the program's, or where `withKernel`. Without parameters, and of unknown functions in a row one.
  public static func line(_ frames: [Frame], withKernel: Bool = false, limit: Int = 6) -> String {
    if frames.isEmpty { return "no call chain" }
    let telling = telling(frames)
    let own = telling.filter { !$0.isKernel }
    var names: [String] = []
    for frame in withKernel || own.isEmpty ? telling : own {
      let name = frame.shortName
      if name != unknown || names.last != unknown { names.append(name) }
    }
    let isCut = names.count > limit
    return names.prefix(limit).joined(separator: " < ") + (isCut ? " < ..." : "")
  }

  static let unknown = "[unknown]"
}

extension CallChains.Frame {
  /// The function without the parameters that C++ names have, and without the version that symbols of libraries have.
  var shortName: String {
    guard function.last == ")" else {
      let name = function.prefix { $0 != "@" }
      return name.isEmpty ? function : String(name)
    }
    var depth = 0
    var index = function.endIndex
    while index > function.startIndex {
      index = function.index(before: index)
      if function[index] == ")" { depth += 1 }
      if function[index] == "(" { depth -= 1 }
      if depth > 0 { continue }
      let name = function[..<index]
      return name.isEmpty || name.hasSuffix("operator") ? function : String(name)
    }
    return function
  }
}
