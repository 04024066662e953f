// SPDX-License-Identifier: Apache-2.0
//
// Bringing in the pages of what is mapped: the second half of locking, and of mappings made with `.populate`.
//
// Range: of each VMA at most 2 MiB at a time, for reading: what faults do, page after page. What was locked before
// is not held any more; what is there now is what counts, as in Linux.
// Linux: mm/gup.c `__mm_populate`, `populate_vma_page_range`.

import SystemPackage

extension AddressSpace {
  /// Brings in the pages of a range as far as they can be: a VMA whose pages cannot be is left where that was seen.
  ///
  /// - Precondition: nothing is held, and the thread is not pinned.
  @inline(never)
  func bringIn(_ range: AddressRange) {
    do throws(Errno) { try bringIn(range, stopsAtError: false) } catch {
      preconditionFailure("AddressSpace.bringIn: \(error)")
    }
  }

  /// The same of what is locked.
  @inline(never)
  func bringInLocked(_ range: AddressRange) {
    do throws(Errno) { try bringIn(range, stopsAtError: false, onlyLocked: true) } catch {
      preconditionFailure("AddressSpace.bringIn: \(error)")
    }
  }

  /// The same; with `stopsAtError` up to the first page that cannot be.
  ///
  /// - Throws: `EFAULT` for such a page, `ENOMEM` without memory. Holes, devices and memory that is locked as its pages
  ///   come are passed over.
  @inline(never)
  func bringIn(
    _ range: AddressRange, stopsAtError: Bool, onlyLocked: Bool = false
  ) throws(Errno) {
    let before = LockMap.enter(.populate)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    var position = range.start
    while let piece = nextPiece(position, range.end, context) {
      switch bringInPiece(piece, onlyLocked, context) {
      case .wanted(let page, let end):
        switch provide(page, context) {
        case nil: position = page.address
        case let refusal?:
          if stopsAtError { throw refusal == .outOfMemory ? .noMemory : .badAddress }
          position = end
        }
      case .done: position = piece.end
      case .again: position = piece.start
      case .passed(let end, let errno):
        if stopsAtError, let errno { throw errno }
        position = end
      }
    }
  }

  private enum PieceOutcome {
    case done
    /// Something has to be provided first; the VMA ends there.
    case wanted(WantedPage, Address)
    /// The VMA went while we waited: look again.
    case again
    /// Nothing more is done up to this address.
    case passed(Address, Errno?)
  }

  /// The part of the next VMA that is dealt with at once. Without a lock: it is looked at again under it.
  private func nextPiece(
    _ position: Address, _ end: Address, _ context: Context
  ) -> AddressRange? {
    if position >= end { return nil }
    context.pin()
    defer { context.unpin() }
    guard let next = layout.pointee.findIntersection(position, end) else { return nil }
    let start = max(position, next.pointee.start)
    return AddressRange(
      start: start, end: min(end, next.pointee.end, (start >> 21 + 1) << 21))
  }

  private func bringInPiece(
    _ piece: AddressRange, _ onlyLocked: Bool, _ context: Context
  ) -> PieceOutcome {
    let hold = lock.read(piece, .populate)
    park.pass(.populate)
    LockMap.observe(.layout, hold, piece)
    context.pin()
    defer { context.unpin() }
    guard let record = layout.pointee.find(piece.start) else { return .again }
    LockMap.observe(.vmaFlags, hold, piece)
    let flags = record.pointee.flags
    let vmaEnd = record.pointee.end
    if flags.contains(.device) || flags.contains(.lockOnFault) { return .passed(vmaEnd, nil) }
    if onlyLocked && !flags.contains(.locked) { return .passed(vmaEnd, nil) }
    guard let access = flags.accessAhead else { return .passed(vmaEnd, .badAddress) }
    let end = min(piece.end, record.pointee.end)
    var position = piece.start
    var wanted: WantedPage?
    while position < end {
      if let errno = bringIn(page: position, access, hold, &wanted, context) {
        return .passed(vmaEnd, errno)
      }
      if let wanted { return .wanted(wanted, vmaEnd) }
      position += Address.pageSize
    }
    return end == piece.end ? .done : .passed(end, nil)
  }
}
