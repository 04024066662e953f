// SPDX-License-Identifier: Apache-2.0
//
// Taking pages from a shared object, for all who map it.
//
// Range: the caller's pages, for reading. Other places that map the object are not held: there the latch of the page
// table alone decides (design section 4, the order from an object towards spaces).
// Linux: mm/madvise.c `madvise_remove`; mm/shmem.c `shmem_fallocate` with `FALLOC_FL_PUNCH_HOLE`; mm/truncate.c
// `truncate_inode_folio`.

extension AddressSpace {
  /// Pages that are taken out between two looks of those who wait for one of them.
  private static var batch: UInt64 { 512 }

  /// Empties the object's pages that a held range maps. While one of its mappings shows an old page none shows a new
  /// one: a page is marked, taken out of all page tables, and only when nobody can use it any more taken out of the
  /// object. A fault that finds a marked page waits until it is gone (Linux `shmem_falloc`).
  func punchHole(
    _ piece: AddressRange, _ backing: MappingRef, into drops: inout FrameDropList,
    _ context: Context
  ) {
    let object = backing.pointee.object
    let end = backing.pageIndex(piece.start) + piece.length >> 12
    var index = backing.pageIndex(piece.start)
    while index < end {
      object.pointee.removalLatch.lock(.objectRemoval)
      index = punchBatch(of: object, from: index, below: end, into: &drops, context)
      object.pointee.removalLatch.unlock(.objectRemoval)
    }
  }

  /// A batch of them; where the next begins. Needs the latch of removals.
  private func punchBatch(
    of object: ObjectRef, from start: UInt64, below end: UInt64, into drops: inout FrameDropList,
    _ context: Context
  ) -> UInt64 {
    var next = start
    var count: UInt64 = 0
    while count < Self.batch, let page = object.markPage(from: next, below: end) {
      while !unmap(page.frame, page.index, of: object, into: &drops, context) {
        // A page that is mapped at more places than the list holds.
        drops.makeRoom(FrameCache.dropCapacity)
      }
      next = page.index + 1
      count += 1
    }
    if count == 0 { return end }
    drops.shootdown()
    park.pass(.advise)
    var index = start
    while let page = object.takeMarkedPage(from: index, below: next, context) {
      drops.makeRoom(1)
      // The object's own reference.
      drops.addFrame(page.frame)
      index = page.index + 1
    }
    return next
  }

  /// Takes a page that an object is to lose out of the page tables; `false` = the list is full, call again.
  private func unmap(
    _ frame: FrameNumber, _ index: UInt64, of object: ObjectRef, into drops: inout FrameDropList,
    _ context: Context
  ) -> Bool {
    var isDone = true
    object.forEachPlace(of: index) { place, address in
      LockMap.observe(.reverseMap, .objectMappings, .read)
      if place != self.place {
        unmap(frame, at: address, in: place, context)
        return
      }
      if drops.room == 0 {
        isDone = false
        return
      }
      guard let leaf = tables.latchLeafInOrder(address, context) else { return }
      if leaf.maps(frame, at: address) {
        LockMap.observe(.pageTableEntry, .pageTable, .write)
        drops.add(leaf.extract(address), at: address)
      }
      leaf.unlockLeaf()
    }
    return isDone
  }

  /// The same in another space that a fork has given the object to. Its threads are told at once.
  private func unmap(
    _ frame: FrameNumber, at address: Address, in place: SpacePlaceRef, _ context: Context
  ) {
    var drops = FrameDropList(arena, place.pointee.accessors, context)
    if let leaf = place.pointee.tables.latchLeafInOrder(address, context) {
      if leaf.maps(frame, at: address) {
        LockMap.observe(.pageTableEntry, .pageTable, .write)
        drops.add(leaf.extract(address), at: address)
      }
      leaf.unlockLeaf()
    }
    drops.shootdown()
    place.pointee.account(drops, context)
    drops.release()
  }
}

extension UnsafeMutablePointer where Pointee == PageTable {
  /// Whether an entry maps a frame. Needs the latch.
  fileprivate func maps(_ frame: FrameNumber, at address: Address) -> Bool {
    let entry = latchedEntry(address)
    return entry.isPresent && !entry.isZeroPage && entry.frame == frame
  }
}

extension PageTables {
  /// As `latchLeaf` without making tables, for a caller that has marked a frame: either it finds the table into which
  /// a fault installs that frame, or the fault finds the mark. All loads and stores on the way are sequentially
  /// consistent. Partner: `descend`, which links a new table, and `FrameArena.isRemoved`, which the fault asks with
  /// the table latched.
  func latchLeafInOrder(_ address: Address, _ context: Context) -> PageTableRef? {
    context.pin()
    defer { context.unpin() }
    while true {
      var table = root
      while table.pointee.level > 0 {
        let slot = table.entry(PageTableRef.index(address, table.pointee.level))
        guard
          let child = PageTableRef(
            bitPattern: UInt(slot.pointee.load(ordering: .sequentiallyConsistent)))
        else { return nil }
        table = child
      }
      table.pointee.latch.lock(.pageTable)
      if table.pointee.stray.load(ordering: .relaxed) == 0 { return table }
      table.unlockLeaf()
    }
  }
}
