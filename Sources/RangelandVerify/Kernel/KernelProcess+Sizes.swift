// SPDX-License-Identifier: Apache-2.0
//
// What the kernel counts, from /proc/pid/status, which the helper reads.

import CKernelProtocol
import Glibc

extension KernelProcess {
  /// The sizes of the windows' mappings, as the last state has them; how many there are it does not tell.
  var sizes: VerifySizes {
    (absoluteSizes - baseline).withoutLocks(outside: lockableOutside)
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

  /// The sizes that came with the last answer that tells them.
  var absoluteSizes: VerifySizes {
    let sizes = channel.pointee.sizes
    return VerifySizes(
      virtual: Int(sizes.total), data: Int(sizes.data), executable: Int(sizes.executable),
      stack: Int(sizes.stack), locked: Int(sizes.locked),
      residentAnonymous: Int(sizes.resident_anonymous),
      residentShared: Int(sizes.resident_shared), residentFile: Int(sizes.resident_file))
  }
}
