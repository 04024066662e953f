// SPDX-License-Identifier: Apache-2.0
//
// Changing all entries of a range: zap (unmap, MADV_DONTNEED) and protect.
//
// Absent tables are skipped a slot at a time on every level. Entries that are empty when they are looked
// at are skipped without a latch: the caller's hold keeps faults out of its range, or it does not care
// whether a racing fault comes before or after it (MADV_DONTNEED).

import RangeLocks
import Synchronization

extension PageTables {
  /// Empties all entries of `range` and adds what they mapped to `drops`. The caller runs the drop
  /// list's `shootdown()` before it unlocks the range (Linux `zap_page_range`, `free_pgtables`).
  ///
  /// - Parameter freeingTables: the mapping goes: guards go too, and tables that are or become empty, but for the one
  ///   that the calling thread keeps (`letGo`).
  func zap(
    _ range: AddressRange, into drops: inout FrameDropList, freeingTables: Bool,
    _ context: Context
  ) {
    context.pin()
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      zapLeaf(piece, &drops, freeingTables, context)
    }
    context.unpin()
  }

  @inline(__always)
  private func zapLeaf(
    _ piece: LeafWalk.Piece, _ drops: inout FrameDropList, _ freeingTables: Bool,
    _ context: Context
  ) {
    var piece = piece
    while true {
      let leaf = piece.leaf
      var at = piece.start
      // What was installed in a range that is held is counted.
      let isUsed = leaf.inUse != 0
      while isUsed, at < piece.end, leaf.entry(of: at).pointee.load(ordering: .relaxed) == 0 {
        at += 4096
      }
      if !isUsed || at >= piece.end {
        if freeingTables, leaf.inUse == 0 { letGo(piece, drops.own, context) }
        return
      }
      drops.makeRoom(PageTable.entryCount)
      leaf.pointee.latch.lock(.pageTable)
      if leaf.pointee.stray.load(ordering: .relaxed) == 0 {
        while at < piece.end {
          let bits = leaf.entry(of: at).pointee.load(ordering: .relaxed)
          if bits != 0 && (freeingTables || bits & PageTableEntry.guardBit == 0) {
            LockMap.observe(.pageTableEntry, .pageTable, .write)
            drops.add(leaf.extract(at), at: at)
            if leaf.inUse == 0 { break }
          }
          at += 4096
        }
        let isEmpty = leaf.inUse == 0
        leaf.unlockLeaf()
        if isEmpty, freeingTables { letGo(piece, drops.own, context) }
        return
      }
      // It was emptied and freed; there may be a new one.
      leaf.unlockLeaf()
      guard let fresh = self.leaf(piece.start) else { return }
      piece.leaf = fresh
    }
  }

  /// A leaf is empty. A thread that has an accessor keeps the last one that it has emptied, and with it the tables above, for
  /// whoever maps there next: tables that are freed come back three epochs later only, and while a thread that is pinned
  /// has no processor epochs stand still. Frees the one that was kept before, if nobody uses it.
  ///
  /// It may be far from the range of the operation's hold: as everywhere, others that latch a freed table see the mark. A leaf
  /// all of which goes is freed: whoever unmaps so much has more to do, and maps without touching would walk past it.
  @inline(__always)
  private func letGo(_ piece: LeafWalk.Piece, _ accessor: AccessorRef?, _ context: Context) {
    let leaf = piece.leaf
    guard let accessor, piece.end - piece.start < 2 << 20 else { return freeIfEmpty(leaf, context) }
    let kept = accessor.pointee.emptyLeaf
    if kept != leaf.pointee.base { keep(leaf.pointee.base, insteadOf: kept, accessor, context) }
  }

  @inline(never)
  private func keep(
    _ base: Address, insteadOf kept: Address, _ accessor: AccessorRef, _ context: Context
  ) {
    accessor.pointee.emptyLeaf = base
    if kept < Address.spaceEnd, let leaf = leaf(kept), leaf.inUse == 0 {
      freeIfEmpty(leaf, context)
    }
  }

  /// Takes all rights but `allowed` from the pages of `range`, and notes in `drops` who has them cached.
  /// The caller runs the drop list's `shootdown()` before it unlocks the range. Rights are only taken: a
  /// page gets more at its next fault (Linux `change_protection`).
  func protect(
    _ range: AddressRange, allowing allowed: PageRights, into drops: inout FrameDropList,
    _ context: Context
  ) {
    context.pin()
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      protectLeaf(piece, allowed, &drops)
    }
    context.unpin()
  }

  @inline(__always)
  private func protectLeaf(
    _ piece: LeafWalk.Piece, _ allowed: PageRights, _ drops: inout FrameDropList
  ) {
    var piece = piece
    let lost = PageTableEntry.rightsMask & ~(UInt64(allowed.rawValue & 7) << 1)
    while true {
      let leaf = piece.leaf
      var at = piece.start
      while at < piece.end, leaf.entry(of: at).pointee.load(ordering: .relaxed) & lost == 0 {
        at += 4096
      }
      if at >= piece.end { return }
      leaf.pointee.latch.lock(.pageTable)
      if leaf.pointee.stray.load(ordering: .relaxed) == 0 {
        while at < piece.end {
          if let old = leaf.restrict(to: allowed, at: at) {
            LockMap.observe(.pageProtection, .pageTable, .write)
            drops.note(old, at: at)
          }
          at += 4096
        }
        leaf.unlockLeaf()
        return
      }
      leaf.unlockLeaf()
      guard let fresh = self.leaf(piece.start) else { return }
      piece.leaf = fresh
    }
  }

  /// Replaces the entry of a latched leaf (copy on write): empties it, waits until nobody uses the old
  /// translation, and only then installs `new`, so that no thread sees the old page after another has
  /// written to the new one (Linux `ptep_clear_flush` in `wp_page_copy`). The old entry goes to
  /// `drops`, whose frames the caller releases after it has unlocked the leaf.
  ///
  /// - Precondition: `drops.room > 0`.
  func replace(
    _ new: PageTableEntry, at address: Address, in leaf: PageTableRef,
    _ drops: inout FrameDropList
  ) {
    let old = leaf.extract(address)
    if !old.isEmpty { drops.add(old, at: address) }
    drops.shootdown()
    let isInstalled = leaf.install(new, at: address)
    precondition(isInstalled, "PageTables.replace: the leaf is not latched")
  }

  /// Calls `body` for every non-empty entry of `range`, ascending, with its value at some instant. Takes
  /// no lock: for residency reports and checks.
  func forEachEntry(
    in range: AddressRange, _ context: Context, _ body: (Address, PageTableEntry) -> Void
  ) {
    context.pin()
    defer { context.unpin() }
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      var at = piece.start
      while at < piece.end {
        let bits = piece.leaf.entry(of: at).pointee.load(ordering: .acquiring)
        if bits != 0 { body(at, PageTableEntry(bits: bits)) }
        at += 4096
      }
    }
  }
}

/// The leaves that exist in a range, ascending. Needs a pinned context; a leaf may turn stray at any
/// time.
struct LeafWalk {
  private let root: PageTableRef
  private var address: Address
  private let end: Address
  /// The level-1 table that covers `address`, if the walk has one.
  private var first: PageTableRef?

  /// A leaf and the part of the range that it covers.
  struct Piece {
    var leaf: PageTableRef
    let start: Address
    let end: Address
  }

  @inline(__always)
  init(_ tables: PageTables, _ range: AddressRange) {
    root = tables.root
    address = range.start
    end = range.end
  }

  @inline(__always)
  mutating func next() -> Piece? {
    while address < end {
      guard let table = first else {
        guard let second = root.child(PageTableRef.index(address, 3)) else {
          address = ((address >> 39) + 1) << 39
          continue
        }
        guard let found = second.child(PageTableRef.index(address, 2)) else {
          address = ((address >> 30) + 1) << 30
          continue
        }
        first = found
        continue
      }
      // The slots of one level-1 table.
      let bound = min(end, ((address >> 30) + 1) << 30)
      var slot = PageTableRef.index(address, 1)
      let last = Int((bound - 1) >> 21) & 511
      while slot <= last {
        if let leaf = table.child(slot) {
          let base = (address >> 30) << 30 | UInt64(slot) << 21
          let piece = Piece(
            leaf: leaf, start: max(address, base), end: min(bound, base + 2 << 20))
          address = piece.end
          if address & (1 << 30 - 1) == 0 { first = nil }
          return piece
        }
        slot += 1
      }
      address = bound
      first = nil
    }
    return nil
  }
}
