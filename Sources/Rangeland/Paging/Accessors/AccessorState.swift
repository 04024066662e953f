// SPDX-License-Identifier: Apache-2.0
//
// The view of one thread on one space: a translation cache, used in short sections.
//
// Guarantee: when a shootdown has returned, no thread uses or will use a translation that was cached
//   before it.
// Mechanism: an access of at most one page runs in a *section*. The section announces itself, then looks
//   whether translations were invalidated, then uses the cache. A shootdown invalidates, then looks
//   whether a section is running and waits for its end. This is Dekker's pattern, all four steps
//   sequentially consistent:
//
//       section                              shootdown
//       1. section = odd                     a. take the right from the table entry
//       2. read invalidations; flush         b. invalidations += 1
//       3. use the cache, or fill from       c. read section; if odd, wait until it
//          the table entry and use that         changes
//       4. section = even (releasing)
//
//   If c reads a value older than 1, then c precedes 1 in the total order, hence b precedes 2: the
//   section flushes before it uses anything, and a fill in 3 reads the entry after a. Otherwise c reads
//   1 and waits for 4 (or reads a later value, and the section is over). A fill joins the entry's "cached
//   by" with a compare-and-swap that fails if a came first, so a shootdown that finds its entry uncached
//   has nobody to tell. When the fill finds itself in "cached by" already and does not swap, its load of
//   the entry (sequentially consistent) came before a, hence 1 before c: the shootdown waits for it.
//   A section takes no latch and waits for nothing, so waiting for its end cannot deadlock, not even
//   under a page-table latch. The thread that shoots is in no section itself: a miss ends the section.
// Cost: a hit is one exchange, one store and a few loads, about 8 ns.
// Source: Linux arch/x86/mm/tlb.c (the invalidation counter is `tlb_gen`); Dekker, in Dijkstra 1965.

import CRangeland
import RangeLocks
import Synchronization

typealias AccessorRef = UnsafeMutablePointer<AccessorState>

/// Memory: this header in the first 128 bytes, `invalidations` at 128, the cache from 256 on. Only the
/// thread that owns it touches it, but for the two atomics.
struct AccessorState: ~Copyable {
  /// Odd while a section runs. Written by the owner. Partner: `AccessorTable.shootdown`.
  let section: Atomic<UInt64>
  /// The value of `section`, for the owner.
  var sequence: UInt64 = 0
  /// The value of `invalidations` that the cache is good for.
  var seenInvalidations: UInt64 = 0
  /// Where the last access that returned `false` needs a fault.
  var faultAddress: Address = 0
  /// What the page table covers that the owner has emptied last and not freed: see `PageTables.letGo`.
  var emptyLeaf: Address = .max
  /// The number in "cached by": 1...4094, or 4095 for threads beyond that.
  let id: UInt64
  let tables: PageTables
  let context: Context
  /// Frame 0: frames are addressed from here.
  let frames: UnsafeMutableRawPointer

  static var cacheEntryCount: Int { 256 }
  static var invalidationsOffset: Int { 128 }
  static var cacheOffset: Int { 256 }
  static var byteCount: Int { cacheOffset + cacheEntryCount * MemoryLayout<CacheEntry>.stride }

  /// A translation. A tag is the page's address, or `noTag`.
  struct CacheEntry {
    var readTag: UInt64
    var writeTag: UInt64
    var page: UnsafeMutableRawPointer?
    var unused: UInt64 = 0

    /// Not page aligned, so it equals no page's address.
    static var noTag: UInt64 { 1 }
    static var empty: CacheEntry { CacheEntry(readTag: noTag, writeTag: noTag, page: nil) }
  }

  /// Makes an accessor with an empty cache; `nil` without memory.
  static func make(
    id: UInt64, tables: PageTables, arena: UnsafeMutablePointer<FrameArena>, context: Context
  ) -> AccessorRef? {
    guard let memory = rl_reserve(byteCount) else { return nil }
    (memory + invalidationsOffset).initializeMemory(as: Atomic<UInt64>.self, to: Atomic(0))
    (memory + cacheOffset).initializeMemory(
      as: CacheEntry.self, repeating: .empty, count: cacheEntryCount)
    let accessor = memory.bindMemory(to: AccessorState.self, capacity: 1)
    accessor.initialize(
      to: AccessorState(
        section: Atomic(0), id: id, tables: tables, context: context, frames: arena.pointee.base))
    return accessor
  }

  /// Gives the memory back. Nobody may use the accessor any more, nor shoot at it.
  static func destroy(_ accessor: AccessorRef) {
    accessor.deinitialize(count: 1)
    _ = rl_release(UnsafeMutableRawPointer(accessor), byteCount)
  }
}

extension UnsafeMutablePointer where Pointee == AccessorState {
  /// Shootdowns of this accessor. Written by whoever shoots; read at the start of every section.
  @inline(__always)
  var invalidations: UnsafeMutablePointer<Atomic<UInt64>> {
    (UnsafeMutableRawPointer(self) + AccessorState.invalidationsOffset)
      .assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// The cache entry for `address`.
  @inline(__always)
  func cacheEntry(_ address: Address) -> UnsafeMutablePointer<AccessorState.CacheEntry> {
    let i = Int(truncatingIfNeeded: address >> 12) & (AccessorState.cacheEntryCount - 1)
    return cache + i
  }

  @inline(__always)
  var cache: UnsafeMutablePointer<AccessorState.CacheEntry> {
    (UnsafeMutableRawPointer(self) + AccessorState.cacheOffset)
      .assumingMemoryBound(to: AccessorState.CacheEntry.self)
  }

  /// Step 1 and 2. The owner only; sections do not nest.
  @inline(__always)
  func beginSection() {
    assert(pointee.sequence & 1 == 0, "accessor sections do not nest")
    pointee.sequence = pointee.sequence &+ 1
    // Sequentially consistent: Dekker with `AccessorTable.shootdown` (see the head of the file).
    pointee.section.store(pointee.sequence, ordering: .sequentiallyConsistent)
    let now = invalidations.pointee.load(ordering: .sequentiallyConsistent)
    if now != pointee.seenInvalidations { flush(now) }
  }

  /// Step 4.
  @inline(__always)
  func endSection() {
    pointee.sequence = pointee.sequence &+ 1
    // Releases the accesses of the section to the load that waits for its end.
    pointee.section.store(pointee.sequence, ordering: .releasing)
  }

  @inline(never)
  private func flush(_ invalidations: UInt64) {
    pointee.seenInvalidations = invalidations
    cache.update(repeating: .empty, count: AccessorState.cacheEntryCount)
  }

  /// Forgets the translations of a range. The owner only, outside a section.
  func forget(_ start: Address, _ end: Address) {
    if end - start <= UInt64(AccessorState.cacheEntryCount) << 12 {
      var page = start & ~0xfff
      while page < end {
        let entry = cacheEntry(page)
        if entry.pointee.readTag == page || entry.pointee.writeTag == page {
          entry.pointee = .empty
        }
        page += 4096
      }
    } else {
      for i in 0..<AccessorState.cacheEntryCount {
        let tag = Swift.max(cache[i].readTag, cache[i].writeTag)
        if tag >= start, tag < end { cache[i] = .empty }
      }
    }
  }

  /// The entry with which this thread's write to a page begins: it counts as cached, read and written by this
  /// accessor from the start. Install it, and call `remember` before the latch of the page table is let go.
  @inline(__always)
  func claimed(_ entry: PageTableEntry) -> PageTableEntry {
    entry.cached(by: pointee.id, forWriting: true)
  }

  /// Caches a translation that the owner itself has installed, outside a section. Whoever takes the entry away
  /// afterwards finds this accessor in it and does step b, so the section that would use the translation flushes
  /// it in step 2: the argument at the head of the file needs step 3 only for entries that others installed.
  ///
  /// - Precondition: the caller has installed `claimed(entry)` and still holds the table's latch.
  @inline(__always)
  func remember(_ page: Address, _ entry: PageTableEntry) {
    cacheEntry(page).pointee = AccessorState.CacheEntry(
      readTag: entry.isReadable ? page : AccessorState.CacheEntry.noTag,
      writeTag: entry.isWritable ? page : AccessorState.CacheEntry.noTag,
      page: pointee.frames + Int(entry.frame) << 12)
  }

  /// The host address of `address`, from the cache or else from the page tables; `nil` = needs a fault.
  /// Only in a section; valid until its end.
  @inline(__always)
  func translate(_ address: Address, forWriting: Bool) -> UnsafeMutableRawPointer? {
    let entry = cacheEntry(address)
    let tag = forWriting ? entry.pointee.writeTag : entry.pointee.readTag
    if tag == address & ~0xfff {
      return entry.pointee.page.unsafelyUnwrapped + Int(truncatingIfNeeded: address & 0xfff)
    }
    return fill(address, forWriting: forWriting)
  }

  /// Step 3 on a miss: looks the entry up, joins "cached by", and caches the translation. A page is
  /// cached for writing only once it was written, so that "dirty" is exact.
  @inline(never)
  func fill(_ address: Address, forWriting: Bool) -> UnsafeMutableRawPointer? {
    guard address < Address.spaceEnd else {
      pointee.faultAddress = address
      return nil
    }
    let context = pointee.context
    context.pin()
    defer { context.unpin() }
    guard let leaf = pointee.tables.leaf(address) else {
      pointee.faultAddress = address
      return nil
    }
    let slot = leaf.entry(of: address)
    // Sequentially consistent: see the head of the file. Acquires the page's contents from `install`.
    var seen = slot.pointee.load(ordering: .sequentiallyConsistent)
    while true {
      let old = PageTableEntry(bits: seen)
      guard old.isPresent, forWriting ? old.isWritable : old.isReadable else {
        pointee.faultAddress = address
        return nil
      }
      let new = old.cached(by: pointee.id, forWriting: forWriting)
      if new != old {
        let (done, current) = slot.pointee.weakCompareExchange(
          expected: seen, desired: new.bits, ordering: .sequentiallyConsistent)
        if !done {
          seen = current
          continue
        }
      }
      let page = pointee.frames + Int(new.frame) << 12
      let tag = address & ~0xfff
      cacheEntry(address).pointee = AccessorState.CacheEntry(
        readTag: new.isReadable ? tag : AccessorState.CacheEntry.noTag,
        writeTag: new.isWritable && new.isDirty ? tag : AccessorState.CacheEntry.noTag, page: page)
      return page + Int(truncatingIfNeeded: address & 0xfff)
    }
  }
}
