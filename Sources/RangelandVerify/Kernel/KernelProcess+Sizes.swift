// SPDX-License-Identifier: Apache-2.0
//
// What the kernel counts, from /proc/pid/status.

import Glibc

extension KernelProcess {
  /// The sizes of the windows' mappings; how many there are it does not tell.
  func sizes() throws(VerifyError) -> VerifySizes {
    try absoluteSizes() - baseline
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
      }
      return result
    }
  }
}
