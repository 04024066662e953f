// SPDX-License-Identifier: Apache-2.0
//
// A request, granted or waiting.
//
// Guarantee: a waiting entry is granted once; it is recycled only when no tree and no stack names it.
// Mechanism: a waiting entry is on the stack of one entry that it waits for, whichever. Who ends that one looks
// for another (`Directory.advance`), or grants.
// Cost: one 128-byte block an entry, a second one for an entry with three homes, or with two that waits; nothing
// for what is waited for. The uncontended request of one home writes the first line and one word of the second.
//
// Layout of a block:
//      0  first, last, state, mode, shape, thread                      Entry
//     24  link of the first home                                       EntryLink
//     64  dependents, extra                                            EntryTail
//     80  link of the second home; of an entry with one home what it needs to wait        EntryLink, Waiting
//    120  the continuation of a waiting task, else since when the request holds or waits
// and of the second block:
//      0  link of the third home                                       EntryLink
//     80  what the entry needs to wait                                 Waiting
//    120  the entry

import CRangeland
import Synchronization

/// A request in the directory.
///
/// `first` and `last` are set before the entry is linked, and change only under the latches of all home shards
/// (shrink). `mode` changes under them too (downgrade, upgrade) and is read under any of them. `shape` and `thread`
/// are set before it is linked.
@usableFromInline
struct Entry: ~Copyable {
  @usableFromInline var first: UInt64
  @usableFromInline var last: UInt64
  /// A count and flags; also the futex word. The count is 1 while the request waits, and 1 more while it is taken
  /// back; zero is granted. Grants release to the waiter's acquiring loads.
  let state: Atomic<UInt32>
  @usableFromInline var mode: LockMode
  /// The level, and in the low two bits the number of home shards.
  var shape: UInt8
  /// Index + 1 of the thread that asked, and `sinceBit`; 0 in checked builds while the entry is in no shard, so that
  /// they trap on a second release.
  @usableFromInline var thread: UInt16

  var level: Int { Int(shape) &>> 2 }

  /// Above the count: how often the request was passed, see `WaitPasses`.
  static let passOne: UInt32 = 1 << 8
  static let passMask: UInt32 = 0x7FFF << 8

  /// Flags of `state`.
  ///
  /// Of a linked entry: it is one of several ranges that have to wait together, and what has become of them is said in
  /// `decisive`. Of that one, which is in no shard: it waits for several ranges (`EntryGroup`).
  static let grouped: UInt32 = 1 << 7
  /// Nobody was in front, and nobody holds it on a stack: the waiting thread looks by itself.
  static let invited: UInt32 = 1 << 23
  /// It waited, and has a stamp: who came later than another that waited. Changes only under all home latches.
  static let stamped: UInt32 = 1 << 25
  /// It stands for the readers in the stripes of a hot range.
  static let standing: UInt32 = 1 << 24
  /// Somebody came to stand in front of it while it waits: who finds nobody in front looks again.
  static let again: UInt32 = 1 << 26
  /// It holds as a reader and waits to hold as a writer.
  static let upgrading: UInt32 = 1 << 27
  /// A thread sleeps on the word.
  static let parked: UInt32 = 1 << 28
  /// It has given up; who takes its count to zero recycles it.
  static let cancelled: UInt32 = 1 << 29
  /// A task waits, with a continuation at `continuationOffset`, not a thread.
  static let suspended: UInt32 = 1 << 30
  /// The task was cancelled before it was suspended.
  static let cancelRequested: UInt32 = 1 << 31
  static let continuationOffset = 120
  /// Of `thread`: unless a task is suspended, the time since when it waits or holds is at `continuationOffset`.
  static let sinceBit: UInt16 = 1 << 15
  static let countMask: UInt32 = grouped - 1
}

/// The second line of an entry's block.
struct EntryTail: ~Copyable {
  /// Entries that wait for this one: see `Dependents`. Nil in every free block of the pool.
  let dependents: Atomic<UnsafeMutableRawPointer?>
  /// The owner's. Of an entry with one home: its shard. With more: the second block, if it has one.
  var extra: UnsafeMutableRawPointer?
}

/// What an entry needs to wait.
struct Waiting {
  /// The next entry on the same stack of dependents. Whoever pushes sets it. Of one of several ranges, which is on no
  /// stack: the entry that waits for all of them.
  var next: UnsafeMutableRawPointer?
  /// A greater one came later. Set before the entry is linked; see "Stamps" in docs/range-lock.md.
  var stamp: UInt64

  static let offset = 80
}

/// The handle of an entry. Who may use it when is said at `Entry`.
@usableFromInline
struct EntryRef: Equatable, @unchecked Sendable {
  // Sendable: an address; the entry has its own rules.
  @usableFromInline let raw: UnsafeMutableRawPointer

  @inlinable @inline(__always)
  init(_ raw: UnsafeMutableRawPointer) { self.raw = raw }

  @inlinable @inline(__always)
  var pointer: UnsafeMutablePointer<Entry> { raw.assumingMemoryBound(to: Entry.self) }

  @inline(__always)
  var tail: UnsafeMutablePointer<EntryTail> { (raw + 64).assumingMemoryBound(to: EntryTail.self) }

  @inline(__always)
  var link0: UnsafeMutablePointer<EntryLink> {
    (raw + 24).assumingMemoryBound(to: EntryLink.self)
  }

  @inline(__always)
  var link1: UnsafeMutablePointer<EntryLink> {
    (raw + 80).assumingMemoryBound(to: EntryLink.self)
  }

  /// What a request that waits, or waited, needs for it.
  @inline(__always)
  var waiting: UnsafeMutablePointer<Waiting> {
    let block = pointer.pointee.shape & 3 == 1 ? raw : tail.pointee.extra.unsafelyUnwrapped
    return (block + Waiting.offset).assumingMemoryBound(to: Waiting.self)
  }

  /// Zero for a request that did not wait: it came before all that do. Needs a home latch.
  @inline(__always)
  var stamp: UInt64 {
    if pointer.pointee.state.load(ordering: .relaxed) & Entry.stamped == 0 { return 0 }
    return waiting.pointee.stamp
  }

  static let ownerOffset = 120

  /// The entry that a second block belongs to.
  static func owner(ofSecondBlock block: UnsafeMutableRawPointer) -> EntryRef {
    EntryRef(block.load(fromByteOffset: ownerOffset, as: UnsafeMutableRawPointer.self))
  }

  /// Gives the entry a second block.
  @inline(__always)
  func setSecondBlock(_ block: UnsafeMutableRawPointer?) {
    tail.pointee.extra = block
    block?.storeBytes(of: raw, toByteOffset: Self.ownerOffset, as: UnsafeMutableRawPointer.self)
  }

  /// Only of an entry with three homes.
  @inline(__always)
  var link2: UnsafeMutablePointer<EntryLink> {
    tail.pointee.extra.unsafelyUnwrapped.assumingMemoryBound(to: EntryLink.self)
  }

  /// Whether nothing is in front of the entry any more. Acquires the sections of all blockers.
  var isGranted: Bool { pointer.pointee.state.load(ordering: .acquiring) & Entry.countMask == 0 }

  /// Where a suspended task's continuation is.
  var continuation: UnsafeMutablePointer<UnsafeContinuation<Bool, Never>> {
    (raw + Entry.continuationOffset).assumingMemoryBound(to: UnsafeContinuation<Bool, Never>.self)
  }

  /// Needs all home latches, or an entry that nobody else can see.
  @inline(__always)
  func setRange(_ range: KeyRange) {
    pointer.pointee.first = range.first
    pointer.pointee.last = range.last
  }

  @inline(__always)
  var range: KeyRange {
    KeyRange(uncheckedFirst: pointer.pointee.first, last: pointer.pointee.last)
  }

  /// The home of an entry with one.
  @inline(__always)
  var onlyHome: ShardRef { ShardRef(raw: tail.pointee.extra.unsafelyUnwrapped) }

  /// Fills a fresh block of a granted request with one home of level 0.
  @inline(__always)
  func initializeNarrow(
    _ range: KeyRange, _ mode: LockMode, _ shard: ShardRef, _ thread: UInt16
  ) {
    #if RANGELAND_CHECKS
      precondition(tail.pointee.dependents.load(ordering: .relaxed) == nil)
    #endif
    pointer.pointee.first = range.first
    pointer.pointee.last = range.last
    pointer.pointee.state.store(0, ordering: .relaxed)
    pointer.pointee.mode = mode
    pointer.pointee.shape = 1
    pointer.pointee.thread = thread
    tail.pointee.extra = shard.raw
  }

  /// Notes that the entry is in no shard any more; traps in checked builds if it was not in one.
  @inline(__always)
  func checkAndClearStamp() {
    #if RANGELAND_CHECKS
      precondition(
        pointer.pointee.thread != 0, "RangeLock: released twice, or after the lock was destroyed")
      pointer.pointee.thread = 0
    #endif
  }

  /// Fills a fresh block; `token` is the count.
  @inline(__always)
  func initialize(_ range: KeyRange, _ mode: LockMode, token: UInt32) {
    pointer.pointee.first = range.first
    pointer.pointee.last = range.last
    pointer.pointee.mode = mode
    pointer.pointee.thread = UInt16(truncatingIfNeeded: rl_thread_index() &+ 1)
    pointer.pointee.state.store(token, ordering: .relaxed)
  }

  /// Whether `since` was noted. Not for a standing entry.
  var hasSince: Bool { pointer.pointee.thread & Entry.sinceBit != 0 }

  /// Since when it waits or holds. Others may look while the owner notes it.
  var since: UInt64 {
    get { sinceWord.pointee.load(ordering: .relaxed) }
    nonmutating set { sinceWord.pointee.store(newValue, ordering: .relaxed) }
  }

  private var sinceWord: UnsafeMutablePointer<Atomic<UInt64>> {
    (raw + Entry.continuationOffset).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  @inline(__always)
  var stateAddress: UnsafeMutablePointer<UInt32> { (raw + 16).assumingMemoryBound(to: UInt32.self) }
}

// MARK: - Waiting behind

extension EntryRef {
  /// Whether a request in `mode` with this stamp has to wait for self, where they overlap. Needs a home latch.
  @inline(__always)
  func blocks(_ mode: LockMode, _ stamp: UInt64) -> Bool {
    if !pointer.pointee.mode.conflicts(with: mode) || self.stamp >= stamp { return false }
    // A cancelled waiter will never hold. It sets the flag before it unlinks; missing it is harmless.
    return pointer.pointee.state.load(ordering: .relaxed) & Entry.cancelled == 0
  }

  /// The entry whose state says whether self is granted. Needs a home latch of self, which is linked.
  var decisive: EntryRef {
    pointer.pointee.state.load(ordering: .relaxed) & Entry.grouped == 0
      ? self : EntryRef(waiting.pointee.next.unsafelyUnwrapped)
  }

  /// Comes to stand in front of self, which waits: who is about to grant it will look again. False if it was
  /// granted before. Needs a home latch of self, and of who comes to stand in front.
  func standInFront() -> Bool {
    let state = decisive.pointer
    var old = state.pointee.state.load(ordering: .relaxed)
    while true {
      if old & Entry.cancelled != 0 { return true }
      if old & Entry.countMask == 0 { return false }
      // Relaxed: who looks again finds everything under our latches.
      let result = state.pointee.state.compareExchange(
        expected: old, desired: old | Entry.again, ordering: .relaxed)
      if result.exchanged { return true }
      old = result.original
    }
  }

  /// Grants self, for which nobody is in front, and wakes it; false if somebody came meanwhile: look again. Needs to
  /// have self for oneself, which ends here if the answer is true.
  func grant(_ pool: NodePool) -> Bool {
    var old = pointer.pointee.state.load(ordering: .relaxed)
    while true {
      let isToLookAgain = old & Entry.again != 0
      // Releases the sections of all blockers to the waiter, acquires a canceller's last writes for recycling.
      let result = pointer.pointee.state.compareExchange(
        expected: old, desired: isToLookAgain ? old & ~Entry.again : old - 1,
        successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if result.exchanged {
        if isToLookAgain { return false }
        granted(old, pool)
        return true
      }
      old = result.original
    }
  }

  /// Takes one off the count of a cancelled entry that was on a stack.
  func drop(_ pool: NodePool) {
    // As `grant`.
    let old = pointer.pointee.state.wrappingSubtract(1, ordering: .acquiringAndReleasing).oldValue
    granted(old, pool)
  }

  /// What is to do after one was taken off the count; `old` is the state from before.
  private func granted(_ old: UInt32, _ pool: NodePool) {
    if old & Entry.countMask != 1 { return }
    if old & Entry.cancelled != 0 {
      if old & Entry.grouped != 0 { EntryGroup(self).recycle(pool) } else { recycle(pool) }
    } else if old & Entry.suspended != 0 {
      // The task does not go on, nor the entry away, before it is resumed.
      continuation.pointee.resume(returning: true)
    } else if old & Entry.parked != 0 {
      // From the grant on the entry may be released and recycled: only its address is used. A block is
      // never unmapped, and a waiter that is woken for nothing looks again.
      _ = rl_futex_wake(stateAddress, 1)
    }
  }

  /// Gives the blocks back. Needs that nothing names the entry.
  func recycle(_ pool: NodePool) {
    if pointer.pointee.shape & 3 != 1, let extra = tail.pointee.extra { pool.give(extra) }
    pool.give(raw)
  }
}
