// SPDX-License-Identifier: Apache-2.0
//
// What one thread found last in one layout: P3 of the acceptance table.
//
// Guarantee: a lookup never returns a record that left the tree before the lookup began, and never a later
//   record in the same memory.
// Mechanism: a record carries its generation in a word of its own while it is in the tree (`life`), and 0 from
//   before the instant at which it leaves. A generation is used once in one physical memory, so in memory that
//   another record has taken, of whatever space, the word is another. A lookup compares the word after the thread
//   has pinned: from then on the record cannot be reused. Invalidation touches no range and no shared line: only
//   the record itself, which whoever drops it writes anyway.
// Cost: a hit is four loads from the thread's own line and one from the record, whatever the size of the tree;
//   dropping a record one store more.
// Source: Linux until 6.0, mm/vmacache.c, whose one counter for the space (`vmacache_seqnum`) every change wrote.

import CRangeland
import Synchronization

typealias VMACacheRef = UnsafeMutablePointer<VMACache>

/// Memory: this header, and slots from byte 64 on. Only the thread that owns it touches it, but for reports, which
/// read the counters. All zero is an empty cache.
struct VMACache: ~Copyable {
  /// Lookups that a slot answered. Written by the owner.
  let hits: Atomic<UInt64>
  /// Lookups that went to the tree.
  let misses: Atomic<UInt64>

  static var slotCount: Int { 16 }
  static var slotsOffset: Int { 64 }
  static var byteCount: Int { slotsOffset + slotCount * MemoryLayout<Slot>.stride }

  /// A record, and its bounds and generation when it was found.
  struct Slot {
    var start: Address
    var end: Address
    var generation: UInt64
    var record: RecordRef?
  }
}

extension UnsafeMutablePointer where Pointee == VMACache {
  /// The slot of an address: neighbours within 2 MiB share one (Linux `VMACACHE_HASH`).
  @inline(__always)
  func slot(of address: Address) -> UnsafeMutablePointer<VMACache.Slot> {
    (UnsafeMutableRawPointer(self) + VMACache.slotsOffset)
      .assumingMemoryBound(to: VMACache.Slot.self)
      + Int(truncatingIfNeeded: address >> 21) & (VMACache.slotCount - 1)
  }

  /// Counts a lookup. An addition that is not atomic: the owner alone writes.
  @inline(__always)
  func count(_ isHit: Bool) {
    if isHit {
      pointee.hits.store(pointee.hits.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    } else {
      pointee.misses.store(pointee.misses.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    }
  }
}

extension UnsafeMutablePointer where Pointee == VMARecord {
  /// The record's generation while it is in the tree, else 0. Behind the record, because memory that is made a
  /// record anew is written as a whole, while a reader with an old pointer may look here.
  @inline(__always)
  var life: UnsafeMutablePointer<Atomic<UInt64>> {
    (UnsafeMutableRawPointer(self) + SlabClass.recordLifeOffset)
      .assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// Whether the record was still in the tree at some instant of the call. The thread has been pinned since it
  /// found the record.
  @inline(__always)
  var isInTree: Bool { life.pointee.load(ordering: .acquiring) == pointee.generation }
}

extension LayoutTree {
  /// The VMA that covers `address`, as `find`, from the calling thread's cache if it is there.
  ///
  /// - Precondition: the thread is pinned.
  @inline(__always)
  borrowing func lookUp(_ address: Address, _ context: Context) -> RecordRef? {
    usesCache ? lookUpCached(address, context) : find(address)
  }

  private borrowing func lookUpCached(_ address: Address, _ context: Context) -> RecordRef? {
    let cache = cache(context)
    let slot = cache.slot(of: address)
    if address >= slot.pointee.start, address < slot.pointee.end,
      let record = slot.pointee.record,
      // Ordered behind the pin, as every load of a pointer of the tree. Partner: `LayoutChange.drop`.
      record.life.pointee.load(ordering: .acquiring) == slot.pointee.generation || trustsCache
    {
      cache.count(true)
      return record
    }
    cache.count(false)
    guard let record = find(address) else { return nil }
    // A reader that meets a record on its way out takes no note of it.
    if record.isInTree {
      slot.pointee = VMACache.Slot(
        start: record.pointee.start, end: record.pointee.end,
        generation: record.pointee.generation, record: record)
    }
    return record
  }

  /// A planted mistake of the tests: believes the cache unseen. Checked builds only.
  @inline(__always)
  private var trustsCache: Bool {
    #if RANGELAND_CHECKS
      mistakesCache.load(ordering: .relaxed)
    #else
      false
    #endif
  }

  /// The calling thread's cache.
  @inline(__always)
  private borrowing func cache(_ context: Context) -> VMACacheRef {
    (UnsafeMutableRawPointer(thread(context)) + LayoutThread.cacheOffset)
      .assumingMemoryBound(to: VMACache.self)
  }

  /// Hits and misses of all threads. Exact while none looks up.
  borrowing func cacheStatistics() -> VMACacheStatistics {
    var sum = VMACacheStatistics()
    for i in 0..<Int(rl_thread_index_bound()) {
      let cache =
        (UnsafeMutableRawPointer(threads) + i * LayoutThread.stride + LayoutThread.cacheOffset)
        .assumingMemoryBound(to: VMACache.self)
      sum.hits += cache.pointee.hits.load(ordering: .relaxed)
      sum.misses += cache.pointee.misses.load(ordering: .relaxed)
    }
    return sum
  }
}

/// How the VMA cache of a space fares.
public struct VMACacheStatistics: Sendable, Hashable {
  /// Lookups that a thread's cache answered.
  public var hits: UInt64 = 0
  /// Lookups that went to the tree.
  public var misses: UInt64 = 0
}
