// SPDX-License-Identifier: Apache-2.0
//
// One reader/writer lock without ranges: what Linux' mmap_lock is, and what the range lock is compared with.
//
// Guarantee: writers exclude everybody, readers share; a request that queued is overtaken by a bounded number of
// others: readers never pass a queue, writers only until its first request has been woken once.
// Mechanism: one word for holders and flags, a queue of waiters on their own stacks under a latch. Who cannot
// enter polls for a bounded time that adapts to what polling brought before, then queues, polls again and sleeps.
// Cost: one compare-and-swap to lock and one subtraction to unlock when nobody waits; 32 bytes; no allocation.
// Source: Linux kernel/locking/rwsem.c (optimistic spinning, RWSEM_FLAG_HANDOFF, downgrade), in behaviour only.
//
// States of the word:
//   bit 0      a writer holds
//   bit 1      the queue is not empty (changes under the latch)
//   bit 2      hand-off: only the first of the queue may enter (changes under the latch)
//   bits 3...  number of readers that hold

import CRangeland
import Synchronization

/// A fair reader/writer lock of a few words, to be embedded in manually managed memory.
///
/// It must not move while it is in use, nor go before every `unlock` has returned: keep it behind a pointer. Zeroed memory is a valid free semaphore.
/// It may be unlocked by another thread than the one that locked it. `.upgradeableRead` is locked as `.write`.
public struct ReadWriteSemaphore: ~Copyable {
  let word = Atomic<UInt32>(0)
  /// Running mean of the polls that led to success; a hint, changed without care by everybody.
  let pollEstimate = Atomic<UInt32>(0)
  let latch = Latch()
  /// The queue; protected by `latch`, atomic only so that a borrowed semaphore can change it. The waiters own
  /// the memory.
  let head = Atomic<UnsafeMutablePointer<SemaphoreWaiter>?>(nil)
  let tail = Atomic<UnsafeMutablePointer<SemaphoreWaiter>?>(nil)

  static let writer: UInt32 = 1
  static let queued: UInt32 = 2
  static let handOff: UInt32 = 4
  static let reader: UInt32 = 8

  /// Most polls before a request queues, about 4 microseconds; and before a queued one sleeps.
  static let pollLimit: UInt32 = 200

  /// A semaphore that nobody holds.
  public init() {}

  /// Waits until the semaphore can be held in `mode`. Polls a bounded time, then sleeps. Acquires.
  @inline(__always)
  public borrowing func lock(_ mode: LockMode) {
    if !enterFast(mode) { _ = lockSlow(mode, deadline: .max) }
  }

  /// Takes the semaphore if it is free for `mode` and nobody waits. Never waits. Acquires on success.
  @inline(__always)
  public borrowing func tryLock(_ mode: LockMode) -> Bool {
    enterFast(mode) || enterWhileFree(mode)
  }

  /// Like `lock(_:)`, but gives up at `deadline`, CLOCK_MONOTONIC nanoseconds; false if it did.
  @inline(__always)
  public borrowing func lock(_ mode: LockMode, deadline: UInt64) -> Bool {
    enterFast(mode) || lockSlow(mode, deadline: deadline)
  }

  /// Ends a hold in `mode`; lets in or wakes who is first in the queue. Releases.
  ///
  /// - Precondition: it is held in `mode`.
  @inline(__always)
  public borrowing func unlock(_ mode: LockMode) {
    let held = mode != .read ? Self.writer : Self.reader
    // Releases the section to whoever enters next, by any of the acquiring exchanges.
    let old = word.wrappingSubtract(held, ordering: .acquiringAndReleasing).oldValue
    #if RANGELAND_CHECKS
      precondition(
        mode != .read ? old & Self.writer != 0 : old >= Self.reader,
        "ReadWriteSemaphore.unlock: it is not held in this mode")
    #endif
    if old & Self.queued != 0 { passOnSlow() }
  }

  /// Turns a writing hold into a reading one in one step; readers at the front of the queue enter.
  ///
  /// No writer comes between. Readers behind a waiting writer go on waiting.
  ///
  /// - Precondition: it is held for writing.
  public borrowing func downgrade() {
    // Releases what was written to the readers that enter now.
    let old = word.wrappingAdd(Self.reader &- Self.writer, ordering: .acquiringAndReleasing)
      .oldValue
    #if RANGELAND_CHECKS
      precondition(
        old & Self.writer != 0, "ReadWriteSemaphore.downgrade: it is not held for writing")
    #endif
    if old & Self.queued != 0 { passOnSlow() }
  }

  /// Whether somebody holds it in `mode` now: for assertions and diagnostics only.
  public borrowing func isHeld(_ mode: LockMode) -> Bool {
    let word = word.load(ordering: .relaxed)
    return mode != .read ? word & Self.writer != 0 : word >= Self.reader
  }

  /// The number of queued requests: for tests and diagnostics only.
  ///
  /// - Complexity: walks the queue under its latch.
  public borrowing func queuedCount() -> Int {
    latch.lock()
    defer { latch.unlock() }
    var count = 0
    var waiter = head.load(ordering: .relaxed)
    while let here = waiter {
      count += 1
      waiter = here.pointee.next
    }
    return count
  }
}

// MARK: - Entering

extension ReadWriteSemaphore {
  /// One attempt that assumes no contention.
  @inline(__always)
  borrowing func enterFast(_ mode: LockMode) -> Bool {
    if mode != .read {
      // Acquires what earlier holders released in `unlock`; so do all exchanges that enter.
      return word.compareExchange(
        expected: 0, desired: Self.writer, successOrdering: .acquiring, failureOrdering: .relaxed
      ).exchanged
    }
    let old = word.load(ordering: .relaxed)
    return old & (Self.reader - 1) == 0
      && word.compareExchange(
        expected: old, desired: old &+ Self.reader, successOrdering: .acquiring,
        failureOrdering: .relaxed
      ).exchanged
  }

  /// Enters unless a holder or a queue is in the way; other readers that come and go are not.
  @inline(never)
  borrowing func enterWhileFree(_ mode: LockMode) -> Bool {
    var old = word.load(ordering: .relaxed)
    while mode != .read ? old == 0 : old & (Self.reader - 1) == 0 {
      let result = word.compareExchange(
        expected: old, desired: old &+ (mode != .read ? Self.writer : Self.reader),
        successOrdering: .acquiring, failureOrdering: .relaxed)
      if result.exchanged { return true }
      old = result.original
    }
    return false
  }

  /// Like `enterWhileFree`, but a writer may pass a queue whose first was not woken in vain yet.
  @inline(__always)
  borrowing func enterWhilePolling(_ mode: LockMode) -> Bool {
    if mode == .read { return enterWhileFree(.read) }
    let old = word.load(ordering: .relaxed)
    return old & ~Self.queued == 0
      && word.compareExchange(
        expected: old, desired: old | Self.writer, successOrdering: .acquiring,
        failureOrdering: .relaxed
      ).exchanged
  }
}
