// SPDX-License-Identifier: Apache-2.0
//
// Pages of a file that are gone go from a space: from the object to its spaces.
//
// Range: where they stand, for writing, so that faults that had found a page before have ended.
// Linux: mm/memory.c `unmap_mapping_range`, `zap_page_range_single`.

extension AddressSpace {
  /// Takes pages of an object, and perhaps the private copies that were made of them, out of the page tables. Called
  /// under no lock.
  func dropPages(_ range: AddressRange, of object: ObjectRef, copiesToo: Bool) {
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
      if record.pointee.backing?.pointee.object == object {
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
