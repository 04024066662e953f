// SPDX-License-Identifier: Apache-2.0
//
// A shard: the requests whose granule hashes here, under a latch that carries their number.
//
// Guarantee: the tree changes only under the latch; a thread that takes the latch *to add* raises the count in
// the same atomic step, so that who reads zero is ordered before it (see docs/range-lock.md, "Two looks").
// Mechanism: one word: bit 0 held, the rest the count of entries. Only the holder of the latch changes the word,
// so a plain store unlocks. A word of its own says that somebody may sleep.
// Cost: one compare-and-swap to lock, one store to unlock; 128 bytes.
//
// Sleeping: whoever sleeps counts itself in `sleepers` first, and whoever unlocks looks there afterwards. The
// unlocking store may still be under way when it looks, so a wake-up can be missed; a barrier that excludes this
// would cost as much as the latch. A sleeper looks again by itself after `sleepLimit`.
//
// Layout of a shard (128 bytes, aligned):
//      0  word, sleepers                                               Shard
//      8  root                                                         IntervalTree
//     16  slot of the stripes of a hot range
//     24  its readers                                                  ShardReaders
//     64  eight facts: granule + 1 of a granule below which nothing is held, or 0     Atomic<UInt64>

import CRangeland
import Synchronization

/// The atomic part of a shard. Zeroed memory is a valid empty shard.
struct Shard: ~Copyable {
  let word: Atomic<UInt32>
  /// Threads that sleep for the latch, or are about to.
  let sleepers: Atomic<UInt32>

  static let held: UInt32 = 1
  static let one: UInt32 = 2

  /// Polls before the first sleep, about 2 microseconds: longer than nearly all sections.
  static let spinLimit = 100
  /// The longest sleep, in nanoseconds.
  static let sleepLimit: UInt64 = 200_000
}

/// The handle of a shard. It lives as long as its lock.
struct ShardRef: Equatable {
  let raw: UnsafeMutableRawPointer

  @inline(__always)
  var pointer: UnsafeMutablePointer<Shard> { raw.assumingMemoryBound(to: Shard.self) }

  /// The entries; needs the latch.
  @inline(__always)
  var tree: UnsafeMutablePointer<IntervalTree> {
    (raw + 8).assumingMemoryBound(to: IntervalTree.self)
  }

  /// The number of entries, those being added included.
  ///
  /// Sequentially consistent: one half of "I publish, then look at you", see docs/range-lock.md. Zero also
  /// acquires the sections of all that were here: it was stored by an unlock, whose thread had acquired the latch
  /// from the unlock before.
  @inline(__always)
  var count: UInt32 { pointer.pointee.word.load(ordering: .sequentiallyConsistent) / Shard.one }

  /// Takes the latch and adds `adding` (0 or 1) to the count in the same step.
  ///
  /// Sequentially consistent: the other half of "publish, then look". Acquires what `unlock` released.
  @inline(__always)
  func lock(adding: UInt32) {
    let old = pointer.pointee.word.load(ordering: .relaxed)
    let new = (old &+ adding &* Shard.one) | Shard.held
    if old & Shard.held != 0
      || !pointer.pointee.word.compareExchange(
        expected: old, desired: new, successOrdering: .sequentiallyConsistent,
        failureOrdering: .relaxed
      ).exchanged
    {
      lockSlow(adding: adding)
      return
    }
    tidy(old)
  }

  /// An entry that left alone let its link lie; see `tryRemoveOnly`. Needs the latch, `old` from before it.
  @inline(__always)
  private func tidy(_ old: UInt32) {
    if old < Shard.one { tree.pointee.root = nil }
  }

  /// Like `lock(adding:)`, but gives up at once when somebody is there; true if it has the latch.
  @inline(__always)
  func tryLock(adding: UInt32) -> Bool {
    let old = pointer.pointee.word.load(ordering: .relaxed)
    let new = (old &+ adding &* Shard.one) | Shard.held
    if old & Shard.held != 0
      || !pointer.pointee.word.compareExchange(
        expected: old, desired: new, successOrdering: .sequentiallyConsistent,
        failureOrdering: .relaxed
      ).exchanged
    {
      return false
    }
    tidy(old)
    return true
  }

  /// Takes the latch and adds one to the count if nobody is there and nothing in the tree, whose root may be
  /// left from earlier: use `insertFirst`, or lock again.
  @inline(__always)
  func tryLockEmpty() -> Bool {
    pointer.pointee.word.compareExchange(
      expected: 0, desired: Shard.one | Shard.held, successOrdering: .sequentiallyConsistent,
      failureOrdering: .relaxed
    ).exchanged
  }

  /// Takes the only entry out if nobody has the latch. While the count is zero the root means nothing.
  @inline(__always)
  func tryRemoveOnly() -> Bool {
    // Releases the entry's section to who reads zero; acquires its dependents.
    pointer.pointee.word.compareExchange(
      expected: Shard.one, desired: 0, successOrdering: .acquiringAndReleasing,
      failureOrdering: .relaxed
    ).exchanged
  }

  /// Frees the latch, takes `removing` (0 or 1) from the count, wakes one sleeper if there may be one.
  @inline(__always)
  func unlock(removing: UInt32) {
    if unlockHasSleepers(removing: removing) { wakeSlow() }
  }

  /// Frees the latch like `unlock(removing:)`; true if the caller has to call `wakeSlow`.
  @inline(__always)
  func unlockHasSleepers(removing: UInt32) -> Bool {
    // Only we change the word while we hold the latch.
    let old = pointer.pointee.word.load(ordering: .relaxed)
    #if RANGELAND_CHECKS
      precondition(old & Shard.held != 0, "Shard.unlock: the latch is not held")
      precondition(old >= removing &* Shard.one, "Shard.unlock: the count is below zero")
    #endif
    // Releases the tree to the next holder, and the section of a removed entry to who reads zero.
    pointer.pointee.word.store(
      (old &- removing &* Shard.one) & ~Shard.held, ordering: .releasing)
    return pointer.pointee.sleepers.load(ordering: .relaxed) != 0
  }

  /// Adds one to the count, as `lock(adding: 1)` does. Needs the latch.
  func raise() {
    pointer.pointee.word.wrappingAdd(Shard.one, ordering: .sequentiallyConsistent)
  }

  /// Takes one from the count. Needs the latch.
  func lower() {
    // Releases the section of a removed entry to who reads zero.
    pointer.pointee.word.wrappingSubtract(Shard.one, ordering: .releasing)
  }

  @inline(never)
  private func lockSlow(adding: UInt32) {
    var spins = 0
    while true {
      let old = pointer.pointee.word.load(ordering: .relaxed)
      if old & Shard.held == 0 {
        let new = (old &+ adding &* Shard.one) | Shard.held
        if pointer.pointee.word.compareExchange(
          expected: old, desired: new, successOrdering: .sequentiallyConsistent,
          failureOrdering: .relaxed
        ).exchanged {
          tidy(old)
          return
        }
        continue
      }
      if spins < Shard.spinLimit {
        spins += 1
        rl_cpu_relax()
        continue
      }
      pointer.pointee.sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
      _ = rl_futex_wait(wordAddress, old, rl_monotonic_ns() &+ Shard.sleepLimit)
      pointer.pointee.sleepers.wrappingSubtract(1, ordering: .relaxed)
    }
  }

  @inline(never)
  func wakeSlow() { _ = rl_futex_wake(wordAddress, 1) }

  private var wordAddress: UnsafeMutablePointer<UInt32> { raw.assumingMemoryBound(to: UInt32.self) }
}

// MARK: - Checking

extension ShardRef {
  /// Checks the tree against the count; needs the latch. `pending`: of the count, not linked yet.
  ///
  /// - Complexity: looks at some 32 entries at most, so that checked builds stay usable with many.
  @inline(__always)
  func checkInvariants(pending: UInt32) {
    #if RANGELAND_CHECKS
      let expected = pointer.pointee.word.load(ordering: .relaxed) / Shard.one &- pending
      if tree.pointee.root.rank > 5 { return }
      let count = tree.pointee.checked()
      precondition(count == expected, "Shard: the count is \(expected), the tree has \(count)")
      tree.pointee.forEach(overlapping: .all) { entry in
        precondition(
          entry.pointer.pointee.thread != 0, "Shard: a recycled entry is linked")
        precondition(
          entry.pointer.pointee.first <= entry.pointer.pointee.last,
          "Shard: an empty range is linked")
        return true
      }
    #endif
  }
}
