// SPDX-License-Identifier: Apache-2.0
//
// What advice does to the entries of a range: lazy release, ageing, eviction, guards.
//
// Several threads may do that, and fault, in one range at the same time; each entry changes under the latch of
// its table. Accessors change "cached by", accessed, dirty and lazy bits at any time, hence the loops.
// Source: Linux mm/madvise.c `madvise_free_pte_range`, `madvise_cold_or_pageout_pte_range`,
// `guard_install_pte_entry`, `guard_remove_pte_entry`.

import Synchronization

extension PageTables {
  /// Marks the pages of private memory that nobody else maps as released until they are written to. The
  /// caller runs the drop list's `shootdown()`: then nobody writes to such a page unnoticed.
  func releaseLazily(
    _ range: AddressRange, into drops: inout FrameDropList, _ context: Context
  ) {
    let arena = drops.arena
    change(range, context, &drops) { entry in
      guard entry.isPresent, entry.kind == .anonymous, arena.references(entry.frame) == 1 else {
        return nil
      }
      return entry.releasedLazily
    }
  }

  /// Ends the lazy release of a page, as if it was written to (Linux `FOLL_TOUCH` with `FOLL_WRITE`).
  func takeBack(_ page: Address, _ context: Context) {
    if !lookup(page, context).isLazilyReleased { return }
    guard let leaf = latchLeaf(page, creating: false, context) else { return }
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    _ = leaf.change(page) { entry in
      if !entry.isLazilyReleased { return nil }
      return PageTableEntry(
        bits: entry.bits & ~PageTableEntry.lazyBit | PageTableEntry.dirtyBit)
    }
    leaf.unlockLeaf()
  }

  /// Takes the accessed marks away.
  func age(_ range: AddressRange, into drops: inout FrameDropList, _ context: Context) {
    change(range, context, &drops) { entry in
      entry.isPresent ? PageTableEntry(bits: entry.bits & ~PageTableEntry.accessedBit) : nil
    }
  }

  /// Takes lazily released pages out, and pages of shared memory, which their object keeps; ages the others: there is
  /// no store that they could go to.
  func evict(_ range: AddressRange, into drops: inout FrameDropList, _ context: Context) {
    change(range, context, &drops) { entry in
      if !entry.isPresent { return nil }
      if entry.isLazilyReleased || entry.kind == .sharedMemory { return .empty }
      return PageTableEntry(bits: entry.bits & ~PageTableEntry.accessedBit)
    }
  }

  /// Takes the pages of objects out; copies of them, and guards, stay.
  func zapObject(_ range: AddressRange, into drops: inout FrameDropList, _ context: Context) {
    change(range, context, &drops) { entry in
      entry.isPresent && entry.kind != .anonymous ? .empty : nil
    }
  }

  /// The same of a part that takes about `wanted` pages out, whole tables at a time.
  ///
  /// - Returns: the end of that part.
  func zapObject(
    _ range: AddressRange, atMost wanted: Int64, into drops: inout FrameDropList,
    _ context: Context
  ) -> Address {
    context.pin()
    defer { context.unpin() }
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      zapObject(AddressRange(start: piece.start, end: piece.end), into: &drops, context)
      if drops.residentPages >= wanted { return piece.end }
    }
    return range.end
  }

  /// Takes the marks of pages that were written to away, and tells which had one. The caller runs the drop list's
  /// `shootdown()`: then a store sets the mark again.
  func takeWritten(
    _ range: AddressRange, into drops: inout FrameDropList, _ context: Context,
    _ tell: (Address) -> Void
  ) {
    context.pin()
    defer { context.unpin() }
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      drops.makeRoom(PageTable.entryCount)
      guard let leaf = latchLeaf(piece.start, creating: false, context) else { continue }
      for at in stride(from: piece.start, to: piece.end, by: 4096) {
        let old = leaf.change(at) { entry in
          entry.isPresent && entry.isDirty
            ? PageTableEntry(bits: entry.bits & ~PageTableEntry.dirtyBit) : nil
        }
        guard let old else { continue }
        LockMap.observe(.pageTableEntry, .pageTable, .write)
        drops.note(old, at: at)
        tell(at)
      }
      leaf.unlockLeaf()
    }
  }

  /// Takes guards away.
  func removeGuards(_ range: AddressRange, _ context: Context) {
    context.pin()
    defer { context.unpin() }
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      guard let leaf = latchLeaf(piece.start, creating: false, context) else { continue }
      for at in stride(from: piece.start, to: piece.end, by: 4096)
      where leaf.latchedEntry(at).isGuard {
        LockMap.observe(.pageTableEntry, .pageTable, .write)
        _ = leaf.extract(at)
      }
      leaf.unlockLeaf()
    }
  }

  /// Puts a guard into every entry of the range, and what was there into `drops`; `false` = no memory for a
  /// table, and what comes before it is done.
  func installGuards(
    _ range: AddressRange, into drops: inout FrameDropList, _ context: Context
  ) -> Bool {
    var position = range.start
    while position < range.end {
      let end = min(range.end, (position >> 21 + 1) << 21)
      drops.makeRoom(PageTable.entryCount)
      guard let leaf = latchLeaf(position, creating: true, context) else { return false }
      while position < end {
        if !leaf.latchedEntry(position).isGuard {
          LockMap.observe(.pageTableEntry, .pageTable, .write)
          let old = leaf.extract(position)
          if !old.isEmpty { drops.add(old, at: position) }
          let isInstalled = leaf.install(.guardPage, at: position)
          precondition(isInstalled, "PageTables: the leaf is not latched")
        }
        position += Address.pageSize
      }
      leaf.unlockLeaf()
    }
    return true
  }

  /// Gives entries the value that `decide` says, `nil` = they stay. An entry that is emptied goes to the
  /// drop list; one that loses marks is noted there, so that cached translations set them again.
  @inline(__always)
  private func change(
    _ range: AddressRange, _ context: Context, _ drops: inout FrameDropList,
    _ decide: (PageTableEntry) -> PageTableEntry?
  ) {
    context.pin()
    defer { context.unpin() }
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      drops.makeRoom(PageTable.entryCount)
      guard let leaf = latchLeaf(piece.start, creating: false, context) else { continue }
      for at in stride(from: piece.start, to: piece.end, by: 4096) {
        guard let old = leaf.change(at, decide) else { continue }
        LockMap.observe(.pageTableEntry, .pageTable, .write)
        if leaf.latchedEntry(at).isEmpty { drops.add(old, at: at) } else { drops.note(old, at: at) }
      }
      leaf.unlockLeaf()
    }
  }
}

extension UnsafeMutablePointer where Pointee == PageTable {
  /// Changes an entry as `decide` says of its value at that instant; what it was, `nil` = it stays. Needs the
  /// latch.
  @inline(__always)
  fileprivate func change(
    _ address: Address, _ decide: (PageTableEntry) -> PageTableEntry?
  ) -> PageTableEntry? {
    let slot = entry(of: address)
    var seen = slot.pointee.load(ordering: .relaxed)
    while true {
      if seen == 0 { return nil }
      guard let new = decide(PageTableEntry(bits: seen)), new.bits != seen else { return nil }
      // Sequentially consistent: the shootdown that follows relies on it. Partner: the fill's load.
      let (done, current) = slot.pointee.weakCompareExchange(
        expected: seen, desired: new.bits, ordering: .sequentiallyConsistent)
      if done {
        if new.isEmpty { addCount(-1) }
        return PageTableEntry(bits: seen)
      }
      seen = current
    }
  }
}
