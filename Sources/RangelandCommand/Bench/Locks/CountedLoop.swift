// SPDX-License-Identifier: Apache-2.0
//
// A number of acquires and releases and nothing else: for tools that count instructions (Scripts/check-tracing-cost).

import RangeLocks

enum CountedLoop {
  /// The ways through the lock that are counted: whole-lock mode; a narrow range in the directory; everything; 128 MiB
  /// where narrow ranges were used, too; a narrow range with another one held beside it.
  static let paths = ["whole-lock", "directory", "wide", "coarse", "beside"]

  static func run(_ path: String, operations: Int) {
    let isWhole = path == "whole-lock"
    let lock = RangeLock(configuration: .init(usesWholeLockMode: isWhole))
    switch path {
    case "wide": write(lock, .all, operations)
    case "coarse":
      write(lock, LockBench.narrow, 1)
      write(lock, KeyRange((1 << 41)..<(1 << 41 + 128 << 20)), operations)
    case "beside":
      let other = lock.lock(over: HeldRanges.fixedPlace, .write)
      write(lock, LockBench.narrow, operations)
      other.release()
    default: write(lock, LockBench.narrow, operations)
    }
  }

  @inline(never)
  private static func write(_ lock: RangeLock, _ range: KeyRange, _ operations: Int) {
    for _ in 0..<operations {
      let hold = lock.lock(over: range, .write)
      hold.release()
    }
  }
}
