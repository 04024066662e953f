// SPDX-License-Identifier: Apache-2.0
//
// What one thread repeats in a cell of `bench locks`.

import CRangeland
import RangeLocks

/// Acquires and releases ranges one after the other, with or without work under the lock.
final class SectionLoop<Lock: BenchLock>: BenchBody, @unchecked Sendable {
  // Each thread of a run has its own instance.
  private let lock: Lock
  private let requests: [RangeRequest]
  /// Cycles of work in each section.
  private let work: UInt64
  private var next = 0

  init(_ lock: Lock, _ requests: [RangeRequest], workNanoseconds: Int = 0) {
    self.lock = lock
    self.requests = requests
    work = workNanoseconds == 0 ? 0 : CycleRate.cycles(nanoseconds: workNanoseconds)
  }

  static var batch: Int { 256 }

  @inline(never)
  func runBatch() -> Int {
    requests.withUnsafeBufferPointer { requests in
      var index = next
      for _ in 0..<Self.batch {
        let request = requests[index]
        index += 1
        if index == requests.count { index = 0 }
        lock.section(request.range, request.mode) { spin(work) }
      }
      next = index
    }
    return Self.batch
  }

  @inline(__always)
  private func spin(_ cycles: UInt64) {
    if cycles == 0 { return }
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
