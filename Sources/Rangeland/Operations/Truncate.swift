// SPDX-License-Identifier: Apache-2.0
//
// Pages of a file that are gone go from a space: from the object to its spaces.
//
// Range: where they stand, for writing, so that faults that had found a page before have ended.
// Linux: mm/memory.c `unmap_mapping_range`, `zap_page_range_single`.

extension AddressSpace {
  /// Takes pages of an object, and perhaps the private copies that were made of them, out of the page tables. Called
  /// under no lock.
  ///
  /// - Parameter deltaPages: of the mappings that they are in; others of the object show other pages there.
  func dropPages(
    _ range: AddressRange, of object: ObjectRef, deltaPages: UInt64, copiesToo: Bool
  ) {
    let before = LockMap.enter(.truncate)
    defer { LockMap.leave(before) }
    var hold = lock.write(range, .truncate)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.truncate)
    LockMap.observe(.layout, hold, range)
    LockMap.observe(.pageTableEntry, hold, range)
    var drops = FrameDropList(arena, accessors, context)
    var position = range.start
    while position < range.end, let record = layout.pointee.findNext(position),
      record.pointee.start < range.end
    {
      if let backing = record.pointee.backing, backing.pointee.object == object,
        backing.pointee.deltaPages == deltaPages
      {
        let piece = AddressRange(
          start: max(position, record.pointee.start), end: min(range.end, record.pointee.end))
        if copiesToo {
          tables.zap(piece, into: &drops, freeingTables: false, context)
        } else {
          tables.zapObject(piece, into: &drops, context)
        }
      }
      position = record.pointee.end
    }
    drops.shootdown()
    account(drops, context)
    hold.release()
    drops.release()
  }
}
