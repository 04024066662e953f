// SPDX-License-Identifier: Apache-2.0
//
// Changing the rights of mappings.
//
// Range: [start, end), for writing.
// Linux: mm/mprotect.c `do_mprotect_pkey`, `mprotect_fixup`.

import SystemPackage

extension AddressSpace {
  /// Gives the mappings in a range other rights; VMAs are split at its ends and merged where they are equal.
  ///
  /// When it returns, no thread can use a right that was taken away. Rights that were given reach the
  /// pages at their next fault. Takes the space lock for writing over the range.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  /// - Throws: `EINVAL` for an unaligned start; `ENOMEM` for a range beyond the space, a hole (what is before
  ///   it is changed, as in Linux), or when there is no memory for the records of a split.
  public func protect(
    at start: Address, length: UInt64, _ protection: Protection
  ) throws(Errno) {
    let before = LockMap.enter(.protect)
    defer { LockMap.leave(before) }
    guard start.isPageAligned else { throw .invalidArgument }
    if length == 0 { return }
    guard let rounded = length.roundedUpToPage else { throw .noMemory }
    let (end, overflow) = start.addingReportingOverflow(rounded)
    guard !overflow, end > start, start < Address.spaceEnd else { throw .noMemory }
    // What lies beyond the end of the space is a hole, found after the pages before it.
    let range = AddressRange(start: start, end: min(end, Address.spaceEnd))
    try changeRights(range, protection, endsInHole: end > Address.spaceEnd)
  }

  private func changeRights(
    _ range: AddressRange, _ protection: Protection, endsInHole: Bool
  ) throws(Errno) {
    var hold = lock.write(range, .protect)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.protect)
    LockMap.observe(.layout, hold, range)
    LockMap.observe(.vmaFlags, hold, range)
    LockMap.observe(.vmaOffset, hold, range)
    var change = LayoutChange()
    let error = layout.modify(range, protection, &change, context)
    if let changed = change.changed {
      // Also the pieces that kept their rights: `protect` takes only what the new rights lack.
      LockMap.observe(.pageProtection, hold, changed)
      LockMap.observe(.pageProtection, .pageTable, .write)
      var drops = FrameDropList(arena, accessors, context)
      tables.protect(
        changed, allowing: VMAFlags(protection, .private).pageRights, into: &drops, context)
      drops.shootdown()
      drops.release()
    }
    end(&change, hold, context)
    if let error { throw error }
    if endsInHole { throw .noMemory }
  }
}
