// SPDX-License-Identifier: Apache-2.0
//
// A number of acquires and releases and nothing else: for tools that count instructions (Scripts/check-tracing-cost).

import RangeLocks

enum CountedLoop {
  /// The ways through the lock that are counted.
  static let paths = ["whole-lock", "directory", "wide"]

  @inline(never)
  static func run(_ path: String, operations: Int) {
    let isWhole = path == "whole-lock"
    let lock = RangeLock(configuration: .init(usesWholeLockMode: isWhole))
    let range = path == "wide" ? KeyRange.all : LockBench.narrow
    for _ in 0..<operations {
      let hold = lock.lock(over: range, .write)
      hold.release()
    }
  }
}
