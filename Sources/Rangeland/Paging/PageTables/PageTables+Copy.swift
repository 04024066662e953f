// SPDX-License-Identifier: Apache-2.0
//
// Giving a forked space the pages of a mapping: private ones to be copied on write.
//
// Guarantee: after the drop list's shootdown no thread writes to a page that both spaces have.
// Mechanism: each entry loses the right to write and goes to the other tables with one more reference to its frame.
//   One table's part is read under its latch and written down; then the other's is filled: no latch in a latch.
// Cost: a latch and a reference an entry on each side, one shootdown for the whole fork.
// Source: Linux mm/memory.c `copy_page_range`, `copy_present_ptes`.

import Synchronization

extension PageTables {
  /// What `copy` has done.
  struct Copied {
    var anonymousPages = 0
    var filePages = 0
    var sharedMemoryPages = 0
    /// Pages that somebody pins were left out: see `copyPinned`.
    var hasPinned = false
  }

  /// Copies the entries of `range` to the same addresses of `other`: of private memory all but pinned pages, and it
  /// takes the right to write from both. Who may have that cached is noted in `drops`; the caller runs its
  /// `shootdown()`.
  ///
  /// - Returns: whether there was memory for the tables. If not, what was copied so far is in `other`.
  /// - Precondition: pinned; the space is held for writing, and nobody else knows `other`.
  func copy(
    _ range: AddressRange, to other: PageTables, isShared: Bool, _ copied: inout Copied,
    _ drops: inout FrameDropList, _ context: Context
  ) -> Bool {
    var walk = LeafWalk(self, range)
    while let piece = walk.next() {
      if piece.leaf.inUse == 0 { continue }
      var entries = InlineArray<512, UInt64>(repeating: 0)
      if take(piece, isShared, &entries, &copied, &drops) == 0 { continue }
      guard let leaf = other.latchLeaf(piece.start, creating: true, context) else {
        for i in 0..<512 where entries[i] & PageTableEntry.presentBit != 0 {
          drops.arena.release(PageTableEntry(bits: entries[i]).frame, context)
        }
        return false
      }
      LockMap.observe(.pageTableEntry, .pageTable, .write)
      var at = piece.start
      while at < piece.end {
        let entry = PageTableEntry(bits: entries[Int(at >> 12) & 511])
        if !entry.isEmpty {
          let isInstalled = leaf.install(entry, at: at)
          precondition(isInstalled, "PageTables.copy: something is mapped in the new space")
          copied.count(entry)
        }
        at += 4096
      }
      leaf.unlockLeaf()
    }
    return true
  }

  /// Writes down a leaf's part as the copy shall have it, with a reference to each frame. Returns how many there are.
  private func take(
    _ piece: LeafWalk.Piece, _ isShared: Bool, _ entries: inout InlineArray<512, UInt64>,
    _ copied: inout Copied, _ drops: inout FrameDropList
  ) -> Int {
    let leaf = piece.leaf
    var count = 0
    // Only its holder could free the leaf, and that is us.
    leaf.pointee.latch.lock(.pageTable)
    var at = piece.start
    while at < piece.end {
      if !isShared, let old = leaf.restrict(to: [.read, .execute], at: at) {
        LockMap.observe(.pageProtection, .pageTable, .write)
        drops.note(old, at: at)
      }
      let entry = leaf.latchedEntry(at)
      if entry.isPresent, !isShared, drops.arena.isPinned(entry.frame) {
        copied.hasPinned = true
      } else if !entry.isEmpty {
        if entry.isPresent { drops.arena.retain(entry.frame) }
        entries[Int(at >> 12) & 511] = (isShared ? entry.forkedShared : entry.forked).bits
        count += 1
      }
      at += 4096
    }
    leaf.unlockLeaf()
    return count
  }

  /// Copies the pinned pages of `range`, which stay with who pins them (Linux `copy_present_page`). After the
  /// shootdown, so that the pages are of the same instant as the others. `false` = no memory.
  ///
  /// - Precondition: as for `copy`.
  func copyPinned(
    _ range: AddressRange, to other: PageTables, _ owner: MappingRef, _ copied: inout Copied,
    _ arena: UnsafeMutablePointer<FrameArena>, _ context: Context
  ) -> Bool {
    var isDone = true
    forEachEntry(in: range, context) { at, entry in
      guard isDone, entry.isPresent, arena.isPinned(entry.frame) else { return }
      guard let frame = arena.allocate(zeroed: false, context) else {
        isDone = false
        return
      }
      arena.pointee.bytes(of: frame).copyMemory(
        from: arena.pointee.bytes(of: entry.frame), byteCount: Int(Address.pageSize))
      arena.setOwner(of: frame, owner.pointee.object, index: owner.pageIndex(at))
      let copy = PageTableEntry(
        frame: frame, rights: entry.rights.subtracting(.write), kind: .anonymous)
      guard let leaf = other.latchLeaf(at, creating: true, context) else {
        arena.release(frame, context)
        isDone = false
        return
      }
      LockMap.observe(.pageTableEntry, .pageTable, .write)
      let isInstalled = leaf.install(copy, at: at)
      leaf.unlockLeaf()
      precondition(isInstalled, "PageTables.copyPinned: the page was copied before")
      copied.count(copy)
    }
    return isDone
  }
}

extension PageTables.Copied {
  fileprivate mutating func count(_ entry: PageTableEntry) {
    guard entry.isPresent, !entry.isZeroPage else { return }
    switch entry.kind {
    case .anonymous: anonymousPages += 1
    case .file: filePages += 1
    case .sharedMemory: sharedMemoryPages += 1
    case .uncounted: break
    }
  }
}
