// SPDX-License-Identifier: Apache-2.0
//
// The control of every benchmark: whether the machine gives each thread a core.

/// Arithmetic on registers. With as many cores as threads an operation costs the same however many there are.
final class Spin: BenchBody, @unchecked Sendable {
  // Each thread of a run has its own instance: nothing is shared.
  private var state: UInt64 = 1

  static let batch = 64

  @inline(never)
  func runBatch() -> Int {
    var x = state
    for _ in 0..<64 * Self.batch { x = x &* 6_364_136_223_846_793_005 &+ 1 }
    state = x
    return Self.batch
  }
}
