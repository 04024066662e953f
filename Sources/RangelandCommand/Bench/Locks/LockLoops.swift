// SPDX-License-Identifier: Apache-2.0
//
// What one thread repeats in a cell of `bench locks`.

import CRangeland
import RangeLocks

/// A batch as a closure. A generic class or struct would be reached through its unspecialised witness, and the lock's
/// calls through tables; a closure made in a specialised function is specialised with it.
struct LockLoop: BenchBody {
  let batch: @Sendable () -> Int

  func runBatch() -> Int { batch() }
}

/// The place of a thread in its requests.
private final class Cursor: @unchecked Sendable {
  // Each thread of a run has its own instance.
  var next = 0
}

extension LockLoop {
  static var size: Int { 256 }

  /// Acquires and releases ranges one after the other, with or without work under the lock.
  @inline(__always)
  static func sections<Lock: BenchLock>(
    _ lock: Lock, _ requests: [RangeRequest], workNanoseconds: Int
  ) -> LockLoop {
    let cursor = Cursor()
    let work = workNanoseconds == 0 ? 0 : CycleRate.cycles(nanoseconds: workNanoseconds)
    return LockLoop {
      requests.withUnsafeBufferPointer { requests in
        var index = cursor.next
        for _ in 0..<size {
          let request = requests[index]
          index += 1
          if index == requests.count { index = 0 }
          lock.section(request.range, request.mode) {
            if work != 0 { spin(work) }
          }
        }
        cursor.next = index
      }
      return size
    }
  }

  private static func spin(_ cycles: UInt64) {
    let start = rl_cycles()
    while rl_cycles() &- start < cycles {}
  }
}

/// Cycle stamps in a nanosecond, measured once.
enum CycleRate {
  private static let perNanosecond: Double = {
    let start = (rl_monotonic_ns(), rl_cycles())
    while rl_monotonic_ns() - start.0 < 20_000_000 {}
    return Double(rl_cycles() &- start.1) / Double(rl_monotonic_ns() - start.0)
  }()

  static func cycles(nanoseconds: Int) -> UInt64 {
    UInt64(Double(nanoseconds) * perNanosecond)
  }
}
