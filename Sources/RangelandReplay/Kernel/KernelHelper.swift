// SPDX-License-Identifier: Apache-2.0
//
// The helper program, which is built with the package and stays beside the tool.

import CKernelProtocol
import Glibc
import SystemPackage

enum KernelHelper {
  /// Where it is, or should be.
  static func find() -> (path: String, isThere: Bool) {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) {
      $0.initialize(repeating: 0)
      let status = kp_helper_path($0.baseAddress, $0.count)
      return (FilePath(platformString: $0.baseAddress!).string, status == 0)
    }
  }

  /// The words that start `program` so that it is told to end (SIGTERM) when this process ends, however it does: without
  /// the helper just the program's own.
  static func guarding(_ program: [String]) -> [String] {
    let helper = find()
    return helper.isThere ? [helper.path, "guard", "\(getpid())"] + program : program
  }
}
