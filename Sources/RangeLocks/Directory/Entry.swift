// SPDX-License-Identifier: Apache-2.0
//
// A request, granted or waiting, and the edges that say who waits behind it.
//
// Guarantee: a waiting entry is granted by exactly the drop that takes its count to zero; an entry is recycled
// only when no list and no edge names it.
// Mechanism: `state` counts the edges that name the entry as waiter; whoever is waited for owns the edges.
// Cost: one 128-byte block an entry, a second one for an entry with three homes; the uncontended request of one
// home writes the first line and one word of the second.
//
// Layout of a block:
//      0  first, last, state, mode, shape, thread                      Entry
//     24  link of the first home                                       EntryLink
//     64  dependents, extra                                            EntryTail
//     80  link of the second home                                      EntryLink
//    120  the continuation of a waiting task, else since when the request holds or waits
// and of the second block:
//      0  link of the third home                                       EntryLink

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
  /// Count of edges that name this entry as waiter, plus the owner's token while it examines or cancels;
  /// zero is granted. Also the futex word. Drops release to the waiter's acquiring loads.
  let state: Atomic<UInt32>
  @usableFromInline var mode: LockMode
  /// The level, and in the low two bits the number of home shards.
  var shape: UInt8
  /// Index + 1 of the thread that asked; 0 in checked builds while the entry is in no shard, so that they trap on
  /// a second release.
  var thread: UInt16

  var level: Int { Int(shape) &>> 2 }

  /// Flags of `state` above the count.
  ///
  /// It holds as a reader and waits to hold as a writer.
  static let upgrading: UInt32 = 1 << 27
  /// A thread sleeps on the word.
  static let parked: UInt32 = 1 << 28
  /// It has given up; the drop to zero recycles it.
  static let cancelled: UInt32 = 1 << 29
  /// A task waits, with a continuation at `continuationOffset`, not a thread.
  static let suspended: UInt32 = 1 << 30
  /// The task was cancelled before it was suspended.
  static let cancelRequested: UInt32 = 1 << 31
  static let continuationOffset = 120
  static let countMask: UInt32 = upgrading - 1
}

/// The second line of an entry's block.
struct EntryTail: ~Copyable {
  /// Who waits behind this entry: a push-only stack that only the owner takes from, and only whole.
  /// Pushes release to the owner's acquiring load or exchange. Nil in every free block of the pool.
  let dependents: Atomic<UnsafeMutablePointer<Edge>?>
  /// The owner's. Of an entry with one home: its shard. With three: the second block.
  var extra: UnsafeMutableRawPointer?
}

/// "`waiter` waits behind the entry on whose stack this edge is." Set before it is pushed.
struct Edge {
  var waiter: EntryRef
  var next: UnsafeMutablePointer<Edge>?
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

  /// Fills a fresh block; `token` is 1 for an entry that will count its blockers, 0 for a granted one.
  @inline(__always)
  func initialize(_ range: KeyRange, _ mode: LockMode, token: UInt32) {
    pointer.pointee.first = range.first
    pointer.pointee.last = range.last
    pointer.pointee.mode = mode
    pointer.pointee.shape = 0
    pointer.pointee.state.store(token, ordering: .relaxed)
  }

  @inline(__always)
  var stateAddress: UnsafeMutablePointer<UInt32> { (raw + 16).assumingMemoryBound(to: UInt32.self) }
}

// MARK: - Waiting behind

extension EntryRef {
  /// Pushes "`waiter` waits behind self". Needs the latch of a shard in which self is linked, and a token
  /// or an edge that keeps `waiter`'s count above zero.
  func addDependent(_ waiter: EntryRef, _ block: UnsafeMutableRawPointer) {
    // Relaxed: the caller's token keeps the count positive, and nobody acts on the growth.
    waiter.pointer.pointee.state.wrappingAdd(1, ordering: .relaxed)
    push(block.bindMemory(to: Edge.self, capacity: 1), waiter)
  }

  private func push(_ edge: UnsafeMutablePointer<Edge>, _ waiter: EntryRef) {
    var head = tail.pointee.dependents.load(ordering: .relaxed)
    while true {
      edge.initialize(to: Edge(waiter: waiter, next: head))
      // Releases the edge and the waiter's fields to whoever takes the stack.
      let result = tail.pointee.dependents.compareExchange(
        expected: head, desired: edge, successOrdering: .releasing, failureOrdering: .relaxed)
      if result.exchanged { return }
      head = result.original
    }
  }

  /// Lets go all that wait behind self. Needs self unlinked from every shard: nobody pushes any more.
  func dropDependents(_ pool: NodePool) {
    // Acquires the pushed edges.
    var next = tail.pointee.dependents.exchange(nil, ordering: .acquiring)
    while let edge = next {
      next = edge.pointee.next
      let waiter = edge.pointee.waiter
      pool.give(UnsafeMutableRawPointer(edge))
      waiter.drop(pool)
    }
  }

  /// Lets go those that wait behind self and no longer conflict with it: self changed its mode or its range.
  func dropUnblockedDependents(_ pool: NodePool) {
    let range = range
    let mode = pointer.pointee.mode
    // Acquires the pushed edges. Only the owner takes, so what is put back is not lost.
    var next = tail.pointee.dependents.exchange(nil, ordering: .acquiring)
    while let edge = next {
      next = edge.pointee.next
      let waiter = edge.pointee.waiter
      if waiter.range.overlaps(range), waiter.pointer.pointee.mode.conflicts(with: mode) {
        push(edge, waiter)
      } else {
        pool.give(UnsafeMutableRawPointer(edge))
        waiter.drop(pool)
      }
    }
  }

  /// Puts `waiter` behind self unless it has been granted; true if it waits, or has given up.
  ///
  /// Nil when there is no memory for the edge. Needs the latch of a shard in which `waiter` is linked.
  func holdBack(_ waiter: EntryRef, _ pool: NodePool) -> Bool? {
    var old = waiter.pointer.pointee.state.load(ordering: .relaxed)
    if old & Entry.cancelled != 0 { return true }
    if old & Entry.countMask == 0 { return false }
    guard let block = pool.take() else { return nil }
    while true {
      if old & Entry.countMask == 0 {
        pool.give(block)
        return false
      }
      // From a count that is not zero: the grant cannot have come.
      let result = waiter.pointer.pointee.state.compareExchange(
        expected: old, desired: old + 1, ordering: .relaxed)
      if result.exchanged { break }
      old = result.original
    }
    push(block.bindMemory(to: Edge.self, capacity: 1), waiter)
    return true
  }

  /// Takes one off self's count; the drop that reaches zero grants and wakes, or recycles a cancelled entry.
  func drop(_ pool: NodePool) {
    // Releases the blocker's section to the waiter, acquires the canceller's last writes for recycling.
    let old = pointer.pointee.state.wrappingSubtract(1, ordering: .acquiringAndReleasing).oldValue
    if old & Entry.countMask != 1 { return }
    if old & Entry.cancelled != 0 {
      pool.give(raw)
    } else if old & Entry.suspended != 0 {
      // The task does not go on, nor the entry away, before it is resumed.
      continuation.pointee.resume(returning: true)
    } else if old & Entry.parked != 0 {
      // From the drop on the entry may be released and recycled: only its address is used. A block is
      // never unmapped, and a waiter that is woken for nothing looks again.
      _ = rl_futex_wake(stateAddress, 1)
    }
  }
}
