// SPDX-License-Identifier: Apache-2.0
//
// Sealing mappings: their addresses, rights and contents can no longer be taken away.
//
// Range: [start, end), for writing.
// Linux: mm/mseal.c `do_mseal`; Documentation/userspace-api/mseal.rst.

import SystemPackage

extension AddressSpace {
  /// Seals the mappings of a range for the life of the space: they cannot be unmapped, replaced, moved, resized or
  /// given other rights, and advice that would destroy what cannot be written is refused, each with `EPERM`.
  /// Sealing again is no error.
  ///
  /// Takes the space lock for writing over the range.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  /// - Throws: `EINVAL` for an unaligned start, a length that wraps, or a part of a special mapping that may not
  ///   be cut; `ENOMEM` when any page of the range is not mapped, and then nothing is sealed, or when there is no
  ///   memory for the records of a split.
  public func seal(at start: Address, length: UInt64) throws(Errno) {
    let before = LockMap.enter(.seal)
    defer { LockMap.leave(before) }
    guard start.isPageAligned, let rounded = length.roundedUpToPage else { throw .invalidArgument }
    let (end, overflow) = start.addingReportingOverflow(rounded)
    guard !overflow, end >= start else { throw .invalidArgument }
    if end == start { return }
    guard end <= Address.spaceEnd else { throw .noMemory }
    let range = AddressRange(start: start, end: end)
    var hold = lock.write(range, .seal)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.seal)
    LockMap.observe(.layout, hold, range)
    guard layout.pointee.covers(range) else { throw .noMemory }
    var change = LayoutChange()
    var failure: Errno?
    var position = range.start
    while position < range.end && failure == nil {
      do throws(Errno) {
        position = try modifyStep(
          from: position, to: range.end, hold, context, &change
        ) { .set($0.pointee.flags.union(.sealed)) }.range.end
      } catch {
        failure = error
      }
    }
    // Set once, after the first seal stands and before its hold ends: who holds a sealed range sees it.
    hasSeals.store(true, ordering: .relaxed)
    self.end(&change, hold, context)
    if let failure { throw failure }
  }

  /// Refuses to empty a range in which anything is sealed (Linux `vms_gather_munmap_vmas`).
  ///
  /// - Precondition: pinned, and the range is held for writing.
  @inline(__always)
  func refuseSealed(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) {
    if hasSeals.load(ordering: .relaxed), layout.pointee.hasSeal(in: range) {
      try refuseAtSeal(range, hold, context, &change)
    }
  }

  /// Linux cuts a VMA that reaches over the start before it looks at those behind it.
  @inline(never)
  private func refuseAtSeal(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) {
    if let first = layout.pointee.find(range.start), first.pointee.start < range.start,
      !first.pointee.flags.contains(.sealed)
    {
      if first.forbidsCut(range.start, range.end) { throw .invalidArgument }
      try layout.pointee.split(at: range.start, hold, context, &change)
    }
    throw .notPermitted
  }
}
