// SPDX-License-Identifier: Apache-2.0
//
// Removing mappings.
//
// Range: [start, end), for writing. Neighbours and the outer parts of VMAs that are cut are not locked:
// records are immutable, and Layout reads them again when it publishes.
// Linux: mm/vma.c `do_vmi_munmap`, `vms_complete_munmap_vmas`.

import SystemPackage

extension AddressSpace {
  /// Removes all mappings in a range; VMAs that straddle its ends are cut. Holes are no error.
  ///
  /// When it returns, no thread can use the pages any more, and their frames are free.
  /// Takes the space lock for writing over the range.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages.
  /// - Throws: `EINVAL` for an unaligned start, no length, a range beyond the space, or a part of a special
  ///   mapping that may not be cut; `EPERM` when anything in it is sealed: a mapping that reaches over the start of
  ///   the range stays cut there, as in Linux; `ENOMEM` when there is no memory for the records of a cut, and then
  ///   nothing has changed.
  public func unmap(at start: Address, length: UInt64) throws(Errno) {
    let before = LockMap.enter(.unmap)
    defer { LockMap.leave(before) }
    let range = try Self.unmapRange(start, length)
    defer { settleFiles(reclaimer.context()) }
    try removeAll(range, lock.write(range, .unmap))
  }

  /// The checks of `munmap`, in Linux's order.
  @inline(__always)
  static func unmapRange(_ start: Address, _ length: UInt64) throws(Errno) -> AddressRange {
    guard start.isPageAligned, start <= Address.spaceEnd, length <= Address.spaceEnd - start,
      let rounded = length.roundedUpToPage, rounded != 0
    else { throw .invalidArgument }
    return AddressRange(start: start, end: start + rounded)
  }

  /// Removes what is in the range of a hold: layout, then page tables, then what they held.
  @inline(__always)
  func removeAll(_ range: AddressRange, _ hold: consuming WriteHold) throws(Errno) {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(hold.core.operation)
    try removeHeld(range, hold, context)
  }

  /// The same, of a part of what is held, whose words are locked. The thread is pinned.
  ///
  /// - Parameter whenRemoved: called under the hold once nothing can refuse any more.
  @inline(__always)
  func removeHeld(
    _ range: AddressRange, _ hold: consuming WriteHold, _ context: Context,
    whenRemoved: () -> Void = {}
  ) throws(Errno) {
    var change = LayoutChange()
    var failure: Errno?
    do throws(Errno) {
      // Seals end with the space.
      if hold.core.operation != .exit { try refuseSealed(range, hold, context, &change) }
      try refuseCut(range)
      if hasLimits {
        try removeLimited(range, hold, context, &change)
      } else {
        try layout.pointee.remove(range, hold, context, &change)
      }
      whenRemoved()
    } catch {
      failure = error
    }
    var drops = FrameDropList(arena, accessors, context)
    if failure == nil { clearPages(range, hold, &drops, context) }
    end(&change, hold, context)
    drops.release()
    if let failure { throw failure }
  }

  /// `remove` within the limits.
  @inline(never)
  func removeLimited(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) {
    let before = change.counts
    // Teardown cuts nothing.
    let granted =
      counters.begin(Charge(areas: 1, areasMayBeFewer: true, spareAreas: 1), context) ?? Charge()
    defer { settle(granted, &change, since: before, context) }
    try layout.pointee.remove(range, areas: granted.areas(of: 1), hold, context, &change)
  }
}
