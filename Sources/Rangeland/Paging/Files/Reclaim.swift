// SPDX-License-Identifier: Apache-2.0
//
// Taking frames back from the page cache, when there are no others.
//
// Guarantee: a page that is taken is clean, and nobody maps it; pages of locked mappings stay.
// Mechanism: the page goes from the page tables that map it, each under its latch; it leaves the object if nobody has a
//   reference then but the object and the one who takes it: a page that is on its way to another place of a space at
//   that time has one, and stays.
// Lock order: object's set of mappings, then page tables: the reverse direction, with no space lock.
// Source: Linux mm/vmscan.c `shrink_folio_list`, mm/rmap.c `try_to_unmap`, `__remove_mapping`.

import Synchronization

extension FileTable {
  /// Lets frames go that hold pages of files: clean ones; if there are none dirty ones are written back first, but not from
  /// inside a pager (`PagerCall`). Under no lock; may block.
  ///
  /// - Returns: how many.
  func reclaim(_ wanted: Int, _ context: Context) -> Int {
    let before = LockMap.enter(.writeBack)
    defer { LockMap.leave(before) }
    var done = 0
    for writesBack in [false, true] where done == 0 && !(writesBack && PagerCall.isRunning) {
      forEachObject(context) { object in
        if done >= wanted { return }
        if writesBack { _ = object.writeBack(0..<UInt64.max, context) }
        done += object.evict(0..<UInt64.max, atMost: wanted - done, context)
      }
    }
    return done
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// Lets clean pages go that have these indices; how many.
  func evict(_ range: Range<UInt64>, atMost limit: Int, _ context: Context) -> Int {
    guard let file = pointee.file, file.pointee.tracksDirty else { return 0 }
    var done = 0
    var next = range.lowerBound
    while done < limit {
      pointee.pagesLatch.lock(.pageTable)
      let found = nextPageLocked(next, below: range.upperBound)
      var frame: FrameNumber = 0
      if let found {
        let slot = findSlotLocked(found)
        if slot & (ObjectSlot.loading | ObjectSlot.writing) == 0 {
          frame = FrameNumber(truncatingIfNeeded: slot)
          pointee.arena.retain(frame)
        }
      }
      pointee.pagesLatch.unlock(.pageTable)
      guard let found else { break }
      next = found + 1
      if frame == 0 { continue }
      if !pointee.arena.isDirty(frame), unmapEverywhere(found, frame, context) {
        done += remove(found, frame, context) ? 1 : 0
      }
      pointee.arena.release(frame, context)
    }
    return done
  }

  /// Takes a page out of all page tables; `false` = it is locked somewhere.
  private func unmapEverywhere(
    _ index: UInt64, _ frame: FrameNumber, _ context: Context
  ) -> Bool {
    var isLocked = false
    context.pin()
    forEachPlace(of: index) { place, address in
      if isLocked || place.pointee.isLocked(address) {
        isLocked = true
        return
      }
      var drops = FrameDropList(pointee.arena, place.pointee.accessors, context)
      if let leaf = place.pointee.tables.latchLeaf(address, creating: false, context) {
        let now = leaf.latchedEntry(address)
        if now.isPresent, now.frame == frame {
          LockMap.observe(.pageTableEntry, .pageTable, .write)
          drops.add(leaf.extract(address), at: address)
        }
        leaf.unlockLeaf()
      }
      drops.shootdown()
      place.pointee.account(drops, context)
      drops.release()
    }
    context.unpin()
    return !isLocked
  }

  /// Takes a page out of the object, if it is clean and nobody else uses it.
  private func remove(_ index: UInt64, _ frame: FrameNumber, _ context: Context) -> Bool {
    pointee.pagesLatch.lock(.pageTable)
    LockMap.observe(.objectPages, .pageTable, .write)
    let isUnused =
      findSlotLocked(index) == UInt64(frame) && pointee.arena.references(frame) == 2
      && !pointee.arena.isDirty(frame)
    if isUnused { _ = removeLocked(index) }
    pointee.pagesLatch.unlock(.pageTable)
    if isUnused { pointee.arena.release(frame, context) }
    return isUnused
  }
}
