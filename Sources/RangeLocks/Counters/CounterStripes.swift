// SPDX-License-Identifier: Apache-2.0
//
// Counting what happens in a lock.
//
// Guarantee: nothing is lost; a sum taken while others use the lock is of some time during the call, each stripe for
// itself. No fast path writes here, so disjoint requests share no line for the sake of counting.
// Mechanism: eight stripes, each thread its own as far as they go round.
// Cost: one addition to a line that few others write, where a request waits; nothing elsewhere.

import CRangeland
import Synchronization

/// What is counted, by its place in a stripe.
enum CountedEvent: Int {
  case contended, parks, handOffs, overtakings, acquisitions
}

/// The handle of the stripes of a lock. Zeroed memory is zero of everything.
struct CounterStripes {
  let raw: UnsafeMutableRawPointer

  static let count = 8

  private func word(_ stripe: Int, _ event: CountedEvent) -> UnsafeMutablePointer<Atomic<UInt64>> {
    (raw + stripe * nodeStride + event.rawValue * 8).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// Relaxed: a count orders nothing.
  @inline(never)
  func add(_ event: CountedEvent) {
    let stripe = Int(rl_thread_index()) % Self.count
    word(stripe, event).pointee.wrappingAdd(1, ordering: .relaxed)
  }

  func sum(_ event: CountedEvent) -> UInt64 {
    (0..<Self.count).reduce(0) { $0 &+ word($1, event).pointee.load(ordering: .relaxed) }
  }
}
