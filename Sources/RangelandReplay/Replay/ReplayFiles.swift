// SPDX-License-Identifier: Apache-2.0
//
// Files that stand for those of a recording: sparse, without a name, as long as what was mapped of them.

import Glibc
import SystemPackage

/// The stand-ins of one plan. Closed with the value.
final class ReplayFiles: Sendable {
  /// By the number of the file.
  let descriptors: [Int32]

  /// A mapping of more of a file than this is not replayed as one: file systems have such limits.
  static let sizeLimit: UInt64 = 1 << 43

  /// Makes a file of each size; files of size 0 are never mapped and are not made.
  init(sizes: [UInt64]) throws(ReplayError) {
    let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var opened: [Int32] = []
    var problem: Errno?
    for size in sizes where problem == nil {
      guard size > 0 else {
        opened.append(-1)
        continue
      }
      var template = Array("\(base)/rangeland-replay-XXXXXX".utf8CString)
      let descriptor = template.withUnsafeMutableBufferPointer {
        mkstemp($0.baseAddress!)
      }
      guard descriptor >= 0 else {
        problem = Errno(rawValue: errno)
        break
      }
      opened.append(descriptor)
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
      template.withUnsafeBufferPointer { _ = unlink($0.baseAddress!) }
      if ftruncate(descriptor, off_t(size)) != 0 { problem = Errno(rawValue: errno) }
    }
    descriptors = opened
    if let problem {
      throw .setupFailed("temporary files for \(sizes.count) recorded ones in \(base): \(problem)")
    }
  }

  deinit {
    for descriptor in descriptors where descriptor >= 0 { close(descriptor) }
  }
}
