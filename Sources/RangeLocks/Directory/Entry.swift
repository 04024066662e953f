// SPDX-License-Identifier: Apache-2.0
//
// A request, granted or waiting, and the edges that say who waits behind it.
//
// Guarantee: a waiting entry is granted by exactly the drop that takes its count to zero; an entry is recycled
// only when no list and no edge names it.
// Mechanism: `state` counts the edges that name the entry as waiter; whoever is waited for owns the edges.
// Cost: one 128-byte block an entry; the first line is all that an uncontended request touches.
//
// Layout of a block:
//      0  first, last, dependents, state, mode, homeCount, stamp       Entry
//     32  next, previous, shard                                        EntryLink of the first home
//     64  next, previous, shard                                        EntryLink of the second home

import CRangeland
import Synchronization

/// A request in the directory.
///
/// `first` and `last` are set before the entry is linked and stay. `mode` changes under the latches of all
/// home shards (downgrade) and is read under any of them. `homeCount` is the owner's.
@usableFromInline
struct Entry: ~Copyable {
  @usableFromInline var first: UInt64
  @usableFromInline var last: UInt64
  /// Who waits behind this entry: a push-only stack that only the owner takes from, and only whole.
  /// Pushes release to the owner's acquiring load or exchange.
  let dependents: Atomic<UnsafeMutablePointer<Edge>?>
  /// Count of edges that name this entry as waiter, plus the owner's token while it examines or cancels;
  /// zero is granted. Also the futex word. Drops release to the waiter's acquiring loads.
  let state: Atomic<UInt32>
  @usableFromInline var mode: LockMode
  var homeCount: UInt8
  /// `linkedStamp` while the entry is in a shard: checked builds trap on a second release.
  var stamp: UInt16

  /// Flags of `state` above the count.
  static let parked: UInt32 = 1 << 28
  static let cancelled: UInt32 = 1 << 29
  static let countMask: UInt32 = parked - 1

  static let linkedStamp: UInt16 = 0x10CC
}

/// One membership of an entry in a shard's list; protected by the shard's latch (`shard` is the owner's).
struct EntryLink {
  var next: UnsafeMutablePointer<EntryLink>?
  var previous: UnsafeMutablePointer<EntryLink>?
  var shard: ShardRef

  /// The entry that a link is part of: blocks are aligned to their size.
  @inline(__always)
  static func entry(of link: UnsafeMutablePointer<EntryLink>) -> EntryRef {
    let block = UInt(bitPattern: link) & ~UInt(nodeStride - 1)
    return EntryRef(UnsafeMutableRawPointer(bitPattern: block).unsafelyUnwrapped)
  }
}

/// "`waiter` waits behind the entry on whose stack this edge is." Set before it is pushed.
struct Edge {
  var waiter: EntryRef
  var next: UnsafeMutablePointer<Edge>?
}

/// The handle of an entry. Who may use it when is said at `Entry`.
@usableFromInline
struct EntryRef: Equatable {
  @usableFromInline let raw: UnsafeMutableRawPointer

  @inlinable @inline(__always)
  init(_ raw: UnsafeMutableRawPointer) { self.raw = raw }

  @inlinable @inline(__always)
  var pointer: UnsafeMutablePointer<Entry> { raw.assumingMemoryBound(to: Entry.self) }

  @inline(__always)
  var link0: UnsafeMutablePointer<EntryLink> {
    (raw + 32).assumingMemoryBound(to: EntryLink.self)
  }

  @inline(__always)
  var link1: UnsafeMutablePointer<EntryLink> {
    (raw + 64).assumingMemoryBound(to: EntryLink.self)
  }

  @inline(__always)
  var range: KeyRange {
    KeyRange(uncheckedFirst: pointer.pointee.first, last: pointer.pointee.last)
  }

  /// Fills a fresh block; `token` is 1 for an entry that will count its blockers, 0 for a granted one.
  @inline(__always)
  func initialize(_ range: KeyRange, _ mode: LockMode, token: UInt32) {
    pointer.pointee.first = range.first
    pointer.pointee.last = range.last
    pointer.pointee.mode = mode
    pointer.pointee.dependents.store(nil, ordering: .relaxed)
    pointer.pointee.state.store(token, ordering: .relaxed)
  }

  @inline(__always)
  var stateAddress: UnsafeMutablePointer<UInt32> { (raw + 24).assumingMemoryBound(to: UInt32.self) }
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
    var head = pointer.pointee.dependents.load(ordering: .relaxed)
    while true {
      edge.initialize(to: Edge(waiter: waiter, next: head))
      // Releases the edge and the waiter's fields to whoever takes the stack.
      let result = pointer.pointee.dependents.compareExchange(
        expected: head, desired: edge, successOrdering: .releasing, failureOrdering: .relaxed)
      if result.exchanged { return }
      head = result.original
    }
  }

  /// Lets go all that wait behind self. Needs self unlinked from every shard: nobody pushes any more.
  func dropDependents(_ pool: NodePool) {
    // Acquires the pushed edges.
    var next = pointer.pointee.dependents.exchange(nil, ordering: .acquiring)
    while let edge = next {
      next = edge.pointee.next
      let waiter = edge.pointee.waiter
      pool.give(UnsafeMutableRawPointer(edge))
      waiter.drop(pool)
    }
  }

  /// Lets go the readers that wait behind self, which became a reader; writers go on waiting.
  func dropReadingDependents(_ pool: NodePool) {
    // Acquires the pushed edges. Only the owner takes, so what is put back is not lost.
    var next = pointer.pointee.dependents.exchange(nil, ordering: .acquiring)
    while let edge = next {
      next = edge.pointee.next
      let waiter = edge.pointee.waiter
      if waiter.pointer.pointee.mode == .read {
        pool.give(UnsafeMutableRawPointer(edge))
        waiter.drop(pool)
      } else {
        push(edge, waiter)
      }
    }
  }

  /// Takes one off self's count; the drop that reaches zero grants and wakes, or recycles a cancelled entry.
  func drop(_ pool: NodePool) {
    // Releases the blocker's section to the waiter, acquires the canceller's last writes for recycling.
    let old = pointer.pointee.state.wrappingSubtract(1, ordering: .acquiringAndReleasing).oldValue
    if old & Entry.countMask != 1 { return }
    if old & Entry.cancelled != 0 {
      pool.give(raw)
    } else if old & Entry.parked != 0 {
      // From the drop on the entry may be released and recycled: only its address is used. A block is
      // never unmapped, and a waiter that is woken for nothing looks again.
      _ = rl_futex_wake(stateAddress, 1)
    }
  }
}
