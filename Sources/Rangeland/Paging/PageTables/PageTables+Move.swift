// SPDX-License-Identifier: Apache-2.0
//
// Moving entries to other addresses: the frames stay, their place changes.
//
// Guarantee: at no instant can a page be used at both places. A store through the old place before the move
//   returns is seen at the new one: it is the same frame.
// Mechanism: a table's part is taken out, all who may have it cached are told, and only then is it
//   installed. Memory for the tables at the new place is reserved before, so a move that began does not fail.
// Cost: one latch and one exchange an entry and table on each side, one shootdown for each source table.
// Source: Linux mm/mremap.c `move_page_tables`, `move_ptes`.

import CRangeland
import Synchronization

extension PageTables {
  /// Reserves memory for the tables that `move` may have to make; `false` = there is none.
  ///
  /// - Precondition: pinned. Nothing else makes tables on this thread before the move.
  func reserve(toMove source: AddressRange, to target: Address, _ context: Context) -> Bool {
    var count = 0
    var last: (leaf: UInt64, first: UInt64, second: UInt64) = (.max, .max, .max)
    var walk = LeafWalk(self, source)
    while let piece = walk.next() {
      if piece.leaf.inUse == 0 { continue }
      let start = target + (piece.start - source.start)
      let end = target + (piece.end - source.start)
      var address = start
      while address < end {
        if address >> 21 != last.leaf { count += 1 }
        if address >> 30 != last.first { count += 1 }
        if address >> 39 != last.second { count += 1 }
        last = (address >> 21, address >> 30, address >> 39)
        address = (address >> 21 + 1) << 21
      }
    }
    return count == 0 || context.reserve(.pageTable, count: count)
  }

  /// Moves all entries of `source` to the addresses from `target` on, where none are. When it returns no thread
  /// can use the old place.
  ///
  /// - Precondition: pinned; memory is reserved, and both ranges are held for writing.
  func move(
    _ source: AddressRange, to target: Address, _ drops: inout FrameDropList, _ context: Context
  ) {
    var walk = LeafWalk(self, source)
    while let piece = walk.next() {
      var moved = InlineArray<512, UInt64>(repeating: 0)
      let count = takeOut(piece, &moved, &drops)
      if count == 0 { continue }
      drops.shootdown()
      putBack(moved, piece.end - piece.start, at: target + (piece.start - source.start), context)
    }
  }

  /// Empties the entries of a leaf's part; returns how many there were. `moved` gets them by page.
  private func takeOut(
    _ piece: LeafWalk.Piece, _ moved: inout InlineArray<512, UInt64>,
    _ drops: inout FrameDropList
  ) -> Int {
    var leaf = piece.leaf
    while true {
      leaf.pointee.latch.lock(.pageTable)
      if leaf.pointee.stray.load(ordering: .relaxed) == 0 { break }
      // It was emptied and freed; there may be a new one.
      leaf.unlockLeaf()
      guard let fresh = self.leaf(piece.start) else { return 0 }
      leaf = fresh
    }
    var count = 0
    var at = piece.start
    while at < piece.end {
      if leaf.entry(of: at).pointee.load(ordering: .relaxed) != 0 {
        LockMap.observe(.pageTableEntry, .pageTable, .write)
        let old = leaf.extract(at)
        drops.note(old, at: at)
        // Nobody has the new place cached. A write-back that looks at the old place and the new one while the page is at
        // neither takes no right away, so there is none.
        var lost = PageTableEntry.cachedMask
        if old.isTracked { lost |= PageTableEntry.writeBit }
        moved[Int((at - piece.start) >> 12)] = old.bits & ~lost
        count += 1
      }
      at += 4096
    }
    leaf.unlockLeaf()
    return count
  }

  /// Installs entries at their new place, which lies in one leaf or in two.
  private func putBack(
    _ moved: InlineArray<512, UInt64>, _ length: UInt64, at target: Address, _ context: Context
  ) {
    var leaf: PageTableRef?
    for i in 0..<Int(length >> 12) where moved[i] != 0 {
      let address = target + UInt64(i) << 12
      if let open = leaf, open.pointee.base != (address >> 21) << 21 {
        open.unlockLeaf()
        leaf = nil
      }
      let open = leaf ?? latchReserved(address, context)
      leaf = open
      LockMap.observe(.pageTableEntry, .pageTable, .write)
      let isInstalled = open.install(PageTableEntry(bits: moved[i]), at: address)
      precondition(isInstalled, "PageTables.move: something is mapped at the new place")
    }
    leaf?.unlockLeaf()
  }

  private func latchReserved(_ address: Address, _ context: Context) -> PageTableRef {
    while true {
      if let leaf = latchLeaf(address, creating: true, context) { return leaf }
      // A table that others made and took away meanwhile has used what was reserved: tried again until there is
      // memory, because the entries are nowhere now.
      rl_yield()
    }
  }
}
