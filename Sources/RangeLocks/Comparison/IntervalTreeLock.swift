// SPDX-License-Identifier: Apache-2.0
//
// The range lock that was proposed for Linux: one interval tree under one spin lock. For comparison.
//
// Guarantee: two holds that overlap in time share a key only if both read. First come, first served among
// overlapping requests in conflicting modes.
// Mechanism: every request, held or waiting, is in one tree, with the number of earlier conflicting ones; who
// releases takes one off each later one that overlaps, and wakes those that reach zero.
// Cost: two sections under the one latch, whatever the ranges; a tree search in each. Entries come from the
// pool of the range lock: no allocation in steady state.
// Source: Kara, "lib: Implement range locks" (linux-kernel, 2013); Bueso, "locking: Introduce range
// reader/writer lock" (2017-2019), in behaviour only.

import CRangeland
import Synchronization

/// What the latch protects.
struct IntervalTreeQueue {
  var tree: IntervalTree
  /// The number of requests so far: a later one has a greater number.
  var sequence: UInt
}

/// A reader/writer lock over ranges of `UInt64` keys, as `RangeLock`, with one tree for all.
///
/// The lock must outlive its holds.
public final class IntervalTreeLock: @unchecked Sendable {
  // Sendable: the properties are immutable addresses; what they lead to is atomic or protected by the latch.

  /// Two pairs of lines: the latch, and what it protects.
  let raw: UnsafeMutableRawPointer
  let pool: NodePool

  /// A lock that nobody holds.
  public convenience init() { self.init(pool: .shared) }

  init(pool: NodePool) {
    self.pool = pool
    raw = .allocate(byteCount: 2 * nodeStride, alignment: nodeStride)
    raw.initializeMemory(as: UInt8.self, repeating: 0, count: 2 * nodeStride)
  }

  deinit {
    precondition(
      queue.pointee.tree.root == nil,
      "IntervalTreeLock: destroyed while a range is held or waited for")
    raw.deallocate()
  }

  /// Zeroed memory is a free latch.
  @inline(__always)
  var latch: UnsafeMutablePointer<Latch> { raw.assumingMemoryBound(to: Latch.self) }

  @inline(__always)
  var queue: UnsafeMutablePointer<IntervalTreeQueue> {
    (raw + nodeStride).assumingMemoryBound(to: IntervalTreeQueue.self)
  }

  /// Locks `range`, waiting for conflicting requests that came before: polls briefly, then sleeps.
  @available(*, noasync, message: "blocks the thread")
  public func lock(over range: KeyRange, _ mode: LockMode) -> IntervalTreeHold {
    let entry = takeEntry()
    if !add(entry, range, mode) { wait(entry) }
    return IntervalTreeHold(entry: entry, lock: Unmanaged.passUnretained(self))
  }

  /// Locks `range` unless a conflicting request holds it or waits for it. Never waits.
  public func tryLock(over range: KeyRange, _ mode: LockMode) -> IntervalTreeHold? {
    guard let block = pool.take() else { return nil }
    let entry = EntryRef(block)
    latch.pointee.lock()
    if queue.pointee.tree.hasConflict(range, mode) {
      latch.pointee.unlock()
      pool.give(block)
      return nil
    }
    insertLocked(entry, range, mode, blockers: 0)
    latch.pointee.unlock()
    return IntervalTreeHold(entry: entry, lock: Unmanaged.passUnretained(self))
  }

  /// The number of requests that wait. For tests and diagnostics.
  public var waiterCount: Int {
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    var count = 0
    queue.pointee.tree.forEach(overlapping: .all) { entry in
      if entry.pointer.pointee.state.load(ordering: .relaxed) & ~Entry.parked != 0 { count += 1 }
      return true
    }
    return count
  }
}

extension IntervalTreeLock {
  /// Puts the request into the tree; true if it is granted at once.
  private func add(_ entry: EntryRef, _ range: KeyRange, _ mode: LockMode) -> Bool {
    latch.pointee.lock()
    var blockers: UInt32 = 0
    if queue.pointee.tree.hasConflict(range, mode) {
      queue.pointee.tree.forEach(overlapping: range) { other in
        if other.pointer.pointee.mode.conflicts(with: mode) { blockers += 1 }
        return true
      }
    }
    insertLocked(entry, range, mode, blockers: blockers)
    latch.pointee.unlock()
    return blockers == 0
  }

  private func insertLocked(
    _ entry: EntryRef, _ range: KeyRange, _ mode: LockMode, blockers: UInt32
  ) {
    entry.initialize(range, mode, token: blockers)
    queue.pointee.sequence &+= 1
    entry.tail.pointee.extra = UnsafeMutableRawPointer(bitPattern: queue.pointee.sequence)
    queue.pointee.tree.insert(entry.link0, entry)
  }

  /// Takes a granted request out and grants those that waited only for it.
  func release(_ entry: EntryRef) {
    let sequence = UInt(bitPattern: entry.tail.pointee.extra)
    let mode = entry.pointer.pointee.mode
    latch.pointee.lock()
    queue.pointee.tree.remove(entry.link0)
    queue.pointee.tree.forEach(overlapping: entry.range) { other in
      if other.pointer.pointee.mode.conflicts(with: mode),
        UInt(bitPattern: other.tail.pointee.extra) > sequence
      {
        drop(other)
      }
      return true
    }
    latch.pointee.unlock()
    pool.give(entry.raw)
  }

  /// One blocker less. Needs the latch.
  private func drop(_ entry: EntryRef) {
    // Releases the blocker's section to the waiter.
    let old = entry.pointer.pointee.state.wrappingSubtract(1, ordering: .acquiringAndReleasing)
      .oldValue
    if old == Entry.parked | 1 { _ = rl_futex_wake(entry.stateAddress, 1) }
  }

  @inline(never)
  private func wait(_ entry: EntryRef) {
    var polls = 0
    // Acquires the sections of all blockers.
    while polls < WaitBudget.least {
      if entry.pointer.pointee.state.load(ordering: .acquiring) == 0 { return }
      rl_cpu_relax()
      polls += 1
    }
    while true {
      let old = entry.pointer.pointee.state.bitwiseOr(Entry.parked, ordering: .acquiring).oldValue
      // Its count is all of the word but this flag: there may be many in front.
      if old & ~Entry.parked == 0 { return }
      _ = rl_futex_wait(entry.stateAddress, old | Entry.parked, .max)
    }
  }

  private func takeEntry() -> EntryRef {
    while true {
      if let block = pool.take() { return EntryRef(block) }
      rl_yield()
    }
  }
}

/// A range granted by an `IntervalTreeLock`; when the value ends, the range is released.
public struct IntervalTreeHold: ~Copyable, @unchecked Sendable {
  // Sendable: as `RangeHold`.
  let entry: EntryRef
  let lock: Unmanaged<IntervalTreeLock>

  /// The keys that are held.
  public var range: KeyRange { entry.range }

  /// The mode they are held in.
  public var mode: LockMode { entry.pointer.pointee.mode }

  deinit { lock._withUnsafeGuaranteedRef { $0.release(entry) } }

  /// Ends the hold and grants the requests that waited only for it.
  public consuming func release() {}
}
