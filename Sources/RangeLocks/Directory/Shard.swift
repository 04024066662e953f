// SPDX-License-Identifier: Apache-2.0
//
// A shard: the requests whose granule hashes here, under a latch that carries their number.
//
// Guarantee: the list changes only under the latch; a thread that takes the latch *to add* raises the count in
// the same atomic step, so that who reads zero is ordered before it (see docs/range-lock.md, "Two looks").
// Mechanism: one word: bit 0 held, bit 1 somebody may sleep, the rest the count of entries.
// Cost: one compare-and-swap to lock, one exchange to unlock; 128 bytes.
// Source: Drepper, "Futexes Are Tricky" (2011), mutex2, for sleeping.
//
// Layout of a shard (128 bytes, aligned):
//      0  word, head                                                   Shard
//     64  eight facts: granule + 1 of a granule below which nothing is held, or 0     Atomic<UInt64>

import CRangeland
import Synchronization

/// The first line of a shard. Zeroed memory is a valid empty shard.
struct Shard: ~Copyable {
  let word: Atomic<UInt32>
  /// The list of entries; protected by the latch in `word`.
  var head: UnsafeMutablePointer<EntryLink>?

  static let held: UInt32 = 1
  static let sleepers: UInt32 = 2
  static let one: UInt32 = 4

  /// Polls before the first sleep, about 2 microseconds: longer than nearly all sections.
  static let spinLimit = 100
}

/// The handle of a shard. It lives as long as its lock.
struct ShardRef: Equatable {
  let raw: UnsafeMutableRawPointer

  @inline(__always)
  var pointer: UnsafeMutablePointer<Shard> { raw.assumingMemoryBound(to: Shard.self) }

  /// The number of entries, those being added included.
  ///
  /// Sequentially consistent: one half of "I publish, then look at you", see docs/range-lock.md. Zero also
  /// acquires the sections of all that were here (every change of the word is a read-modify-write).
  @inline(__always)
  var count: UInt32 { pointer.pointee.word.load(ordering: .sequentiallyConsistent) / Shard.one }

  /// Takes the latch and adds `adding` (0 or 1) to the count in the same step.
  ///
  /// Sequentially consistent: the other half of "publish, then look". Acquires what `unlock` released.
  @inline(__always)
  func lock(adding: UInt32) {
    let old = pointer.pointee.word.load(ordering: .relaxed)
    let new = (old &+ adding &* Shard.one) | Shard.held
    if old & (Shard.held | Shard.sleepers) != 0
      || !pointer.pointee.word.compareExchange(
        expected: old, desired: new, successOrdering: .sequentiallyConsistent,
        failureOrdering: .relaxed
      ).exchanged
    {
      lockSlow(adding: adding)
    }
  }

  /// Frees the latch, takes `removing` (0 or 1) from the count, wakes one sleeper if there may be one.
  @inline(__always)
  func unlock(removing: UInt32) {
    // Only the sleeper bit changes while we hold the latch.
    let count = pointer.pointee.word.load(ordering: .relaxed) / Shard.one &- removing
    // Releases the list to the next holder, and the section of a removed entry to who reads zero.
    let old = pointer.pointee.word.exchange(count &* Shard.one, ordering: .releasing)
    #if RANGELAND_CHECKS
      precondition(old & Shard.held != 0, "Shard.unlock: the latch is not held")
    #endif
    if old & Shard.sleepers != 0 { wakeSlow() }
  }

  @inline(never)
  private func lockSlow(adding: UInt32) {
    var spins = 0
    while true {
      let old = pointer.pointee.word.load(ordering: .relaxed)
      if old & Shard.held == 0 {
        var new = (old &+ adding &* Shard.one) | Shard.held
        // We may have slept beside others: our unlock has to wake the next.
        if spins >= Shard.spinLimit { new |= Shard.sleepers }
        if pointer.pointee.word.compareExchange(
          expected: old, desired: new, successOrdering: .sequentiallyConsistent,
          failureOrdering: .relaxed
        ).exchanged {
          return
        }
        continue
      }
      if spins < Shard.spinLimit {
        spins += 1
        rl_cpu_relax()
        continue
      }
      if old & Shard.sleepers == 0 {
        if !pointer.pointee.word.compareExchange(
          expected: old, desired: old | Shard.sleepers, ordering: .relaxed
        ).exchanged {
          continue
        }
      }
      _ = rl_futex_wait(wordAddress, old | Shard.sleepers, UInt64.max)
    }
  }

  @inline(never)
  private func wakeSlow() { _ = rl_futex_wake(wordAddress, 1) }

  private var wordAddress: UnsafeMutablePointer<UInt32> { raw.assumingMemoryBound(to: UInt32.self) }
}

// MARK: - The list

extension ShardRef {
  /// Puts a link at the head. Needs the latch.
  @inline(__always)
  func insert(_ link: UnsafeMutablePointer<EntryLink>) {
    let head = pointer.pointee.head
    link.initialize(to: EntryLink(next: head, previous: nil, shard: self))
    if let head { head.pointee.previous = link }
    pointer.pointee.head = link
  }

  /// Takes a link out. Needs the latch.
  @inline(__always)
  func remove(_ link: UnsafeMutablePointer<EntryLink>) {
    let next = link.pointee.next
    let previous = link.pointee.previous
    if let previous { previous.pointee.next = next } else { pointer.pointee.head = next }
    if let next { next.pointee.previous = previous }
  }

  /// Checks the list against the count; needs the latch. `pending`: of the count, not linked yet.
  ///
  /// - Complexity: looks at 64 entries at most, so that checked builds stay usable with long lists.
  func checkInvariants(pending: UInt32) {
    #if RANGELAND_CHECKS
      let expected = pointer.pointee.word.load(ordering: .relaxed) / Shard.one &- pending
      var length: UInt32 = 0
      var previous: UnsafeMutablePointer<EntryLink>?
      var link = pointer.pointee.head
      while let here = link, length < 64 {
        let entry = EntryLink.entry(of: here)
        precondition(here.pointee.previous == previous, "Shard: a link's previous is wrong")
        precondition(here.pointee.shard == self, "Shard: a link is in the list of another shard")
        precondition(
          entry.pointer.pointee.stamp == Entry.linkedStamp, "Shard: a recycled entry is linked")
        precondition(
          entry.pointer.pointee.first <= entry.pointer.pointee.last,
          "Shard: an empty range is linked")
        length += 1
        previous = here
        link = here.pointee.next
      }
      precondition(
        link == nil ? length == expected : length < expected,
        "Shard: the count is \(expected), the list has \(length)")
    #endif
  }
}
