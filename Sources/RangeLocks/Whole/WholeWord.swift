// SPDX-License-Identifier: Apache-2.0
//
// Whole-lock mode: while holds do not meet in time, one word is the whole lock.
//
// Guarantee: a hold of this mode is found by whoever comes next, with its range and mode, and nobody waits for it
// to end before the directory can be used (docs/range-lock.md, "Whole-lock mode").
// Mechanism: the holder writes range and mode into an entry of its own, then puts the entry's address into the
// word. Whoever meets it takes the entry over into the directory (`leaveWhole`).
// Cost: one compare-and-swap to lock, one to unlock; every line touched stays with the thread.
//
// States of the word:
//   0                  free: no entry in the directory, nobody holds
//   address + 1        held by that entry; the directory is empty
//   2                  directory: requests go there
//   10                 directory, observed: requests go there, by the general ways only (`Observation`)
//   4                  between two of them; only while the mode latch is held

import CRangeland
import Synchronization

/// The states of `DirectoryHeader.word`.
@usableFromInline
enum WholeWord {
  @usableFromInline static var free: UInt64 { 0 }
  @usableFromInline static var heldBit: UInt64 { 1 }
  @usableFromInline static var directory: UInt64 { 2 }
  @usableFromInline static var switching: UInt64 { 4 }
  static var observed: UInt64 { directory | 8 }

  /// Whether the word says that the directory is the place to ask, observed or not. No address has the bit.
  @inline(__always)
  static func isOpen(_ word: UInt64) -> Bool {
    #if RANGELAND_WITHOUT_TRACING
      word == directory
    #else
      word & directory != 0
    #endif
  }

  /// The word while `entry` holds.
  @inlinable @inline(__always)
  static func held(_ entry: EntryRef) -> UInt64 {
    UInt64(UInt(bitPattern: entry.raw)) | heldBit
  }

  /// The entry that holds, if the word says so.
  @inline(__always)
  static func holder(_ word: UInt64) -> EntryRef? {
    if word & heldBit == 0 { return nil }
    return UnsafeMutableRawPointer(bitPattern: UInt(word & ~heldBit)).map(EntryRef.init)
  }
}

extension Directory {
  /// Takes the lock in whole-lock mode; nil decides nothing.
  @inlinable @inline(__always)
  func acquireWhole(
    _ range: KeyRange, _ mode: LockMode, _ cache: UnsafeMutablePointer<NodeCache>
  ) -> EntryRef? {
    if header.pointee.word.load(ordering: .relaxed) != WholeWord.free { return nil }
    guard let block = pool.take(cache) else { return nil }
    let entry = EntryRef(block)
    if takeWord(range, mode, entry) { return entry }
    pool.give(block, cache)
    return nil
  }

  /// Publishes `entry` in the word if it is free.
  @inlinable @inline(__always)
  func takeWord(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef) -> Bool {
    entry.pointer.pointee.first = range.first
    entry.pointer.pointee.last = range.last
    entry.pointer.pointee.mode = mode
    entry.pointer.pointee.thread = UInt16(truncatingIfNeeded: rl_thread_index() &+ 1)
    // Releases the entry to whoever takes it over; acquires the sections of earlier holders.
    return header.pointee.word.compareExchange(
      expected: WholeWord.free, desired: WholeWord.held(entry),
      successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed
    ).exchanged
  }

  /// Ends a granted request of either mode.
  @inlinable @inline(__always)
  func releaseHold(_ entry: EntryRef) {
    let held = WholeWord.held(entry)
    let cache = pool.cache(rl_thread_index())
    // A plain look first: in the directory's time nobody writes the word's line. While we hold, the word is not
    // free, so it cannot come to name our entry again after it stopped to.
    if header.pointee.word.load(ordering: .relaxed) == held,
      // Releases the section to whoever takes the word next.
      header.pointee.word.compareExchange(
        expected: held, desired: WholeWord.free, successOrdering: .releasing,
        failureOrdering: .relaxed
      ).exchanged
    {
      #if RANGELAND_CHECKS
        entry.pointer.pointee.thread = 0
      #endif
      pool.give(entry.raw, cache)
    } else {
      releaseFromDirectory(entry, cache)
    }
  }

  /// Returns when no switch of modes is going on that began before.
  @inline(never)
  func awaitSwitch() {
    modeLatch.pointee.lock()
    modeLatch.pointee.unlock()
  }
}
