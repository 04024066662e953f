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
  /// pages at their next fault, but for private locked memory that becomes writable, which gets pages of its own at
  /// once. Takes the space lock for writing over the range.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  ///   - protection: all rights that the pages are to have; `[]` = none, and every access is refused.
  ///   - fromStackStart: the range begins where the first mapping in it begins, which has to be a stack
  ///     (`PROT_GROWSDOWN`); `EINVAL` otherwise, `ENOMEM` when there is none.
  /// - Throws: `EINVAL` for an unaligned start, or a part of a special mapping that may not be cut; `EACCES` for
  ///   a right that a special mapping or the handle of a file does not allow and `EPERM` for a sealed
  ///   mapping (what is before it is changed); `ENOMEM` for a range beyond the space, a hole (what is before
  ///   it is changed, as in Linux), or when there is no memory for the records of a split.
  public func protect(
    at start: Address, length: UInt64, _ protection: Protection, fromStackStart: Bool = false
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
    let endsInHole = end > Address.spaceEnd
    // Whether pages of locked memory have to be read in once nothing is held.
    var isLate = false
    defer { if isLate { bringInLocked(range) } }
    if fromStackStart {
      try protectStack(range, protection, endsInHole: endsInHole, &isLate)
    } else {
      try changeRights(
        range, lock.write(range, .protect), protection, endsInHole: endsInHole, &isLate)
    }
  }

  @inline(never)
  private func protectStack(
    _ range: AddressRange, _ protection: Protection, endsInHole: Bool, _ isLate: inout Bool
  ) throws(Errno) {
    while true {
      // Where the stack begins is known before the lock, and may have changed when we have it.
      let stack = try stackRange(range)
      let whole = AddressRange(start: min(range.start, stack.start), end: range.end)
      let hold = lock.write(whole, .protect)
      if try stackRange(range) == stack {
        try changeRights(stack, hold, protection, endsInHole: endsInHole, &isLate)
        return
      }
      hold.release()
    }
  }

  /// A range from the start of the first mapping in it on, if that is a stack.
  private func stackRange(_ range: AddressRange) throws(Errno) -> AddressRange {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    guard let first = layout.pointee.findIntersection(range.start, range.end) else {
      throw .noMemory
    }
    guard first.pointee.flags.contains(.growsDown) else { throw .invalidArgument }
    return AddressRange(start: first.pointee.start, end: range.end)
  }

  @inline(__always)
  private func changeRights(
    _ range: AddressRange, _ hold: consuming WriteHold, _ protection: Protection, endsInHole: Bool,
    _ isLate: inout Bool
  ) throws(Errno) {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.protect)
    var change = LayoutChange()
    var drops = FrameDropList(arena, accessors, context)
    var failure: Errno?
    var position = range.start
    while position < range.end && failure == nil {
      do throws(Errno) {
        let step = try modifyStep(
          from: position, to: range.end, hold, context, &change
        ) {
          let flags = $0.pointee.flags.changed(
            to: protection, isAnonymous: $0.pointee.backing == nil,
            hasIdentity: $0.pointee.anonymous != nil)
          if !flags.accessIsAllowed { return .refuse(.permissionDenied) }
          return flags.contains(.sealed) ? .refuse(.notPermitted) : .set(flags)
        }
        if step.isChange {
          restrict(step, hold, &drops, context)
          copyLocked(step, hold, &isLate, context)
        }
        position = step.range.end
      } catch {
        failure = error
      }
    }
    drops.shootdown()
    end(&change, hold, context)
    drops.release()
    if let failure { throw failure }
    if endsInHole { throw .noMemory }
  }

  /// Private memory that is locked and may be written from now on gets its own pages now, so that no write has to
  /// wait for one (end of Linux `mprotect_fixup`). Errors are none of the call's.
  @inline(__always)
  private func copyLocked(
    _ step: ModifyStep, _ hold: borrowing WriteHold, _ isLate: inout Bool, _ context: Context
  ) {
    if step.newFlags.contains(.locked) { copyLockedSlow(step, hold, &isLate, context) }
  }

  @inline(never)
  private func copyLockedSlow(
    _ step: ModifyStep, _ hold: borrowing WriteHold, _ isLate: inout Bool, _ context: Context
  ) {
    if step.oldFlags.contains(.write) || !step.newFlags.contains(.write)
      || !step.newFlags.isDisjoint(with: .sharedOrOnFault)
    {
      return
    }
    // The call has charged already, and a page would be a charge inside that one.
    if counters.countsResident {
      isLate = true
      return
    }
    hold.withReadView { view in
      var position = step.range.start
      var wanted: WantedPage?
      while position < step.range.end,
        bringIn(page: position, .write, view, &wanted, context) == nil, wanted == nil
      {
        position += Address.pageSize
      }
      if let wanted {
        isLate = true
        wanted.object?.release(context)
      }
    }
  }

  /// Takes from the pages of a changed piece what its new rights lack; what they gained comes by faults.
  @inline(__always)
  private func restrict(
    _ step: ModifyStep, _ hold: borrowing WriteHold, _ drops: inout FrameDropList,
    _ context: Context
  ) {
    let rights = step.newFlags.pageRights
    if rights.isSuperset(of: step.oldFlags.pageRights) { return }
    LockMap.observe(.pageProtection, hold, step.range)
    tables.protect(step.range, allowing: rights, into: &drops, context)
  }
}
