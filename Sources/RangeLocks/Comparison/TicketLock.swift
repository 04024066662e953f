// SPDX-License-Identifier: Apache-2.0
//
// A ticket lock, for comparison: strictly first come, first served, and it only spins.
//
// Guarantee: at most one thread is between `lock()` and `unlock()`; threads enter in the order they asked.
// Mechanism: take a number, wait until it is served. After a bounded time of polling each further poll gives the
// processor away, because there may be more threads than processors.
// Cost: one addition to lock, one store to unlock; 8 bytes; no allocation.
// Source: Reed, Kanodia, "Synchronization with Eventcounts and Sequencers" (1979); Mellor-Crummey, Scott (1991).

import CRangeland
import Synchronization

/// A fair spin lock, to be embedded in memory that does not move. What fair hand-off can cost at best.
public struct TicketLock: ~Copyable {
  @usableFromInline let next = Atomic<UInt32>(0)
  @usableFromInline let serving = Atomic<UInt32>(0)

  /// Polls before the processor is given away, some 20 microseconds.
  @usableFromInline static var spinLimit: Int { 1000 }

  /// A lock that nobody holds.
  @inlinable
  public init() {}

  /// Waits for its turn. Spins, never sleeps. Acquires.
  @inlinable @inline(__always)
  public borrowing func lock() {
    let ticket = next.wrappingAdd(1, ordering: .relaxed).oldValue
    // Acquires what the one before released in `unlock`.
    if serving.load(ordering: .acquiring) != ticket { spin(until: ticket) }
  }

  /// Takes the lock if it is free and nobody waits. Never waits. Acquires on success.
  @inlinable @inline(__always)
  public borrowing func tryLock() -> Bool {
    let ticket = serving.load(ordering: .acquiring)
    return next.compareExchange(
      expected: ticket, desired: ticket &+ 1, successOrdering: .acquiring,
      failureOrdering: .relaxed
    ).exchanged
  }

  /// Serves the next. Releases.
  ///
  /// - Precondition: the calling thread holds the lock.
  @inlinable @inline(__always)
  public borrowing func unlock() {
    serving.store(serving.load(ordering: .relaxed) &+ 1, ordering: .releasing)
  }

  @usableFromInline @inline(never)
  borrowing func spin(until ticket: UInt32) {
    var polls = 0
    while serving.load(ordering: .acquiring) != ticket {
      if polls < Self.spinLimit {
        polls += 1
        rl_cpu_relax()
      } else {
        rl_yield()
      }
    }
  }
}
