// SPDX-License-Identifier: Apache-2.0
//
// What the kernel counts, from /proc/pid/status.

import Glibc

extension KernelProcess {
  /// The sizes of the windows' mappings; how many there are it does not tell.
  func sizes() throws(VerifyError) -> VerifySizes {
    (try absoluteSizes() - baseline).withoutLocks(outside: lockableOutside)
  }

  /// Bytes that count against RLIMIT_DATA when the break moves and stand at the start of its window: the heap and the
  /// program's data (Linux `check_data_rlimit`).
  func lengthOfHeap() throws(VerifyError) -> UInt64 {
    let descriptor = open("/proc/\(process)/stat", O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { throw VerifyError("/proc/\(process)/stat cannot be read") }
    defer { close(descriptor) }
    let text = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
      let count = read(descriptor, buffer.baseAddress!, 4096)
      return String(decoding: buffer[..<max(0, count)], as: UTF8.self)
    }
    // The name, in parentheses, is field 2; start_data, end_data and start_brk are 45 to 47.
    let fields = (text.split(separator: ")").last ?? "").split(separator: " ").map { UInt64($0) }
    guard fields.count > 44, let data = fields[42], let dataEnd = fields[43],
      let heap = fields[44], data <= dataEnd, heap > 1 << 32,
      heap < windows[VerifyWindow.heap.rawValue].start
    else {
      throw VerifyError("/proc/\(process)/stat: the helper's heap cannot be found")
    }
    return windows[VerifyWindow.heap.rawValue].start - heap + dataEnd - data
  }

  func absoluteSizes() throws(VerifyError) -> VerifySizes {
    let descriptor = open("/proc/\(process)/status", O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { throw VerifyError("/proc/\(process)/status cannot be read") }
    defer { close(descriptor) }
    return withUnsafeTemporaryAllocation(byteCount: 8192, alignment: 8) { buffer in
      let count = read(descriptor, buffer.baseAddress!, 8192)
      var result = VerifySizes()
      for line in UnsafeRawBufferPointer(rebasing: buffer[..<max(0, count)]).split(separator: 10) {
        func pages(_ name: StaticString) -> Int? {
          let isIt = name.withUTF8Buffer { line.starts(with: $0) }
          guard isIt else { return nil }
          var kilobytes = 0
          for digit in line where digit >= 48 && digit <= 57 {
            kilobytes = kilobytes * 10 + Int(digit - 48)
          }
          return kilobytes / 4
        }
        if let n = pages("VmSize:") { result.virtual = n }
        if let n = pages("VmData:") { result.data = n }
        if let n = pages("VmExe:") { result.executable += n }
        if let n = pages("VmLib:") { result.executable += n }
        if let n = pages("VmStk:") { result.stack = n }
        if let n = pages("VmLck:") { result.locked = n }
        if let n = pages("RssAnon:") { result.residentAnonymous = n }
        if let n = pages("RssShmem:") { result.residentShared = n }
        if let n = pages("RssFile:") { result.residentFile = n }
      }
      return result
    }
  }
}
