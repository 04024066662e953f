// SPDX-License-Identifier: Apache-2.0
//
// Many requests that give up, behind one hold that lasts: what is left of them in memory and in speed.

import CRangeland
import Foundation
import RangeLocks

/// What a storm left behind.
struct CancelStorm {
  /// Requests that gave up.
  var cancelled = 0
  /// What the process had resident before and after, while the hold was still there, in bytes.
  var residentBefore = 0
  var residentAfter = 0
  /// An acquire and release of one thread on the same lock, before and after, in nanoseconds.
  var before = 0.0
  var after = 0.0

  /// `threads` threads make `requests` requests each, whose deadline has nearly passed.
  static func measured(threads: Int, requests: Int) -> CancelStorm {
    let lock = RangeLock(configuration: .init(usesWholeLockMode: false))
    // Each thread has what it keeps before anything is measured.
    storm(lock, threads: threads, requests: 100)
    var result = CancelStorm()
    result.before = speed(lock)
    let hold = lock.lock(over: LockBench.narrow, .write)
    result.residentBefore = resident()
    storm(lock, threads: threads, requests: requests)
    result.residentAfter = resident()
    hold.release()
    result.cancelled = threads * requests
    result.after = speed(lock)
    return result
  }

  private static func storm(_ lock: RangeLock, threads: Int, requests: Int) {
    DispatchQueue.concurrentPerform(iterations: threads) { _ in
      for _ in 0..<requests {
        // The way of a request that has to wait: published, then taken back.
        let hold = lock.lock(over: LockBench.narrow, .write, deadline: rl_monotonic_ns())
        hold?.release()
      }
    }
  }

  /// The best of some runs: the machine may be busy, the lock cannot make itself faster.
  private static func speed(_ lock: RangeLock) -> Double {
    (0..<20).map { _ in
      let count = 20_000
      let start = rl_monotonic_ns()
      for _ in 0..<count { lock.lock(over: LockBench.narrow, .write).release() }
      return Double(rl_monotonic_ns() - start) / Double(count)
    }.min()!
  }

  private static func resident() -> Int {
    let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 4096 } ?? 0
  }
}
