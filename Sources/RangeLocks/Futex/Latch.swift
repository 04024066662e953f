// SPDX-License-Identifier: Apache-2.0
//
// A one-word mutual exclusion lock for short critical sections.
//
// Guarantee: at most one thread is between `lock()` and `unlock()`; what it wrote is visible to the next.
// Mechanism: 0 = free, 1 = held, 2 = held and somebody may sleep; spin a bounded time, then futex.
// Cost: one compare-and-swap to lock, one exchange to unlock, uncontended; 4 bytes; no allocation.
// Source: Drepper, "Futexes Are Tricky" (2011), mutex2.
// Not for: sections that sleep, do I/O or call foreign code. It is not fair.

import CRangeland
import Synchronization

/// A futex lock of one word, meant to be embedded in manually managed memory.
///
/// It must not move while it is in use: keep it behind a pointer.
public struct Latch: ~Copyable {
  @usableFromInline let word = Atomic<UInt32>(0)

  /// Polls before the first sleep, about 2 microseconds: longer than the sections it guards.
  @usableFromInline static var spinLimit: Int { 100 }

  @inlinable
  public init() {}

  /// Waits until the latch is free and takes it. Spins briefly, then sleeps. Acquires.
  @inlinable @inline(__always)
  public borrowing func lock() {
    // Acquires what the previous holder released in `unlock`.
    if !word.compareExchange(
      expected: 0, desired: 1, successOrdering: .acquiring, failureOrdering: .relaxed
    ).exchanged {
      lockSlow()
    }
  }

  /// Takes the latch if it is free. Never waits. Acquires on success.
  @inlinable @inline(__always)
  public borrowing func tryLock() -> Bool {
    word.compareExchange(
      expected: 0, desired: 1, successOrdering: .acquiring, failureOrdering: .relaxed
    ).exchanged
  }

  /// Frees the latch and wakes one sleeper if there may be one. Releases.
  ///
  /// - Precondition: the calling thread holds the latch.
  @inlinable @inline(__always)
  public borrowing func unlock() {
    // Releases to the `acquiring` exchange of the next holder.
    let old = word.exchange(0, ordering: .releasing)
    if old == 2 { wakeSlow() }
    #if RANGELAND_CHECKS
      precondition(old != 0, "Latch.unlock: the latch is not held")
    #endif
  }

  /// Whether somebody holds the latch now: for assertions and diagnostics only.
  @inlinable
  public var isLocked: Bool { word.load(ordering: .relaxed) != 0 }

  @usableFromInline @inline(never)
  borrowing func lockSlow() {
    var spins = 0
    while spins < Self.spinLimit {
      if word.load(ordering: .relaxed) == 0, tryLock() { return }
      rl_cpu_relax()
      spins += 1
    }
    // From here on we always write 2: we cannot know whether others sleep.
    while word.exchange(2, ordering: .acquiring) != 0 {
      _ = withAddress { rl_futex_wait($0, 2, UInt64.max) }
    }
  }

  @usableFromInline @inline(never)
  borrowing func wakeSlow() {
    _ = withAddress { rl_futex_wake($0, 1) }
  }

  /// The futex address. Sound because the latch lives in memory that does not move (see the type).
  @inline(__always)
  private borrowing func withAddress(_ body: (UnsafeMutablePointer<UInt32>) -> Int32) -> Int32 {
    withUnsafePointer(to: self) {
      body(UnsafeMutableRawPointer(mutating: $0).assumingMemoryBound(to: UInt32.self))
    }
  }
}
