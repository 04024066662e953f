// SPDX-License-Identifier: Apache-2.0
//
// Throwing pages away while the mapping stays.
//
// Range: [start, end), for reading: a page that is thrown away is either still there or gone for a
// concurrent access, and each page-table entry changes under its table's latch, so readers of other pages
// and concurrent faults need no protection from each other. Under `.perVMA` the word of the VMA is enough
// when one VMA covers the range.
// Linux: mm/madvise.c `madvise_dontneed_free`.

import SystemPackage

extension AddressSpace {
  /// Throws the pages of a range away (`MADV_DONTNEED`): private memory reads as zeros, or as its file,
  /// again; shared memory keeps its content.
  ///
  /// Takes the space lock for reading over the range.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  /// - Throws: `EINVAL` for an unaligned start or a length that wraps; `ENOMEM` when a part of the range is not
  ///   mapped, after all that is mapped was done.
  public func dontNeed(at start: Address, length: UInt64) throws(Errno) {
    let before = LockMap.enter(.dontNeed)
    defer { LockMap.leave(before) }
    guard start.isPageAligned, let rounded = length.roundedUpToPage else {
      throw .invalidArgument
    }
    let (end, overflow) = start.addingReportingOverflow(rounded)
    guard !overflow, end >= start else { throw .invalidArgument }
    if end == start { return }
    guard start < Address.spaceEnd else { throw .noMemory }
    let range = AddressRange(start: start, end: min(end, Address.spaceEnd))
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    if let hold = readCell(covering: range, .dontNeed) {
      park.pass(.dontNeed)
      throwAway(range, hold, context)
      if end > Address.spaceEnd { throw .noMemory }
      return
    }
    context.unpin()
    let hold = lock.read(range, .dontNeed)
    context.pin()
    park.pass(.dontNeed)
    let isComplete = throwAwayMapped(range, hold, context)
    if !isComplete || end > Address.spaceEnd { throw .noMemory }
  }

  /// Walks the VMAs of the range; whether they cover it.
  private func throwAwayMapped(
    _ range: AddressRange, _ hold: borrowing ReadHold, _ context: Context
  ) -> Bool {
    LockMap.observe(.layout, hold, range)
    var next = range.start
    var isComplete = true
    while next < range.end {
      guard let record = layout.pointee.findNext(next), record.pointee.start < range.end else {
        return false
      }
      if record.pointee.start > next { isComplete = false }
      let piece = AddressRange(
        start: max(next, record.pointee.start), end: min(range.end, record.pointee.end))
      throwAway(piece, hold, context)
      next = piece.end
    }
    return isComplete
  }

  private func throwAway(
    _ piece: AddressRange, _ hold: borrowing ReadHold, _ context: Context
  ) {
    LockMap.observe(.pageTableEntry, hold, piece)
    var drops = FrameDropList(arena, accessors, context)
    tables.zap(piece, into: &drops, freeingTables: false, context)
    drops.shootdown()
    account(drops, context)
    drops.release()
  }
}
