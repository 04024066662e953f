// SPDX-License-Identifier: Apache-2.0
//
// Faults made ahead of accesses.
//
// Range: [start, end), for reading: what faults do, page after page.
// Linux: mm/madvise.c `madvise_populate`; mm/gup.c `faultin_page_range`, `check_vma_flags`, `__mm_populate`.

import SystemPackage

/// What the pages are made present for.
enum Populating {
  /// `MADV_POPULATE_READ`.
  case reading
  /// `MADV_POPULATE_WRITE`.
  case writing

  /// How pages of a mapping with these flags are accessed; `nil` = they may not.
  @inline(__always)
  func access(_ flags: VMAFlags) -> AccessKind? {
    switch self {
    // The right itself: that the processor lets a page be read that may only be written is not asked.
    case .reading: flags.contains(.read) ? .read : nil
    case .writing: flags.contains(.write) ? .write : nil
    }
  }
}

extension AddressSpace {
  /// Makes the pages of a range present, up to the first that cannot be.
  func populate(_ range: AddressRange, _ populating: Populating) throws(Errno) {
    let before = LockMap.enter(.populate)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    var position = range.start
    while position < range.end {
      let wanted = try populateHeld(
        AddressRange(start: position, end: range.end), populating, context)
      guard let wanted else { return }
      switch provide(wanted, context) {
      case nil: position = wanted.address
      case .outOfMemory: throw .noMemory
      case .some: throw .badAddress
      }
    }
  }

  /// What a page needs that could not be had under the hold.
  struct WantedPage {
    var address: Address
    /// The page of a file that has to be read in: the object, with a reference. `nil` = room.
    var object: ObjectRef?
    var index: UInt64 = 0
    var isRandom = false
    /// Room within the space's own limit.
    var isOverLimit = false
  }

  /// Reads in or makes room, when nothing is held.
  ///
  /// - Returns: why the access is refused; `nil` = it may be made again.
  func provide(_ wanted: WantedPage, _ context: Context) -> AccessFault.Reason? {
    if let object = wanted.object {
      return bringIn(object, wanted.index, isRandom: wanted.isRandom, context)
    }
    let hasRoom = wanted.isOverLimit ? makeRoomWithinLimit(context) : makeRoom(context)
    return hasRoom ? nil : .outOfMemory
  }

  /// Populates up to the first page that cannot be had under the hold.
  private func populateHeld(
    _ range: AddressRange, _ populating: Populating, _ context: Context
  ) throws(Errno) -> WantedPage? {
    let hold = lock.read(range, .populate)
    park.pass(.populate)
    LockMap.observe(.layout, hold, range)
    var position = range.start
    while position < range.end {
      // Some pages at a time, so that nobody's memory waits for a long range.
      let stop = min(range.end, position + 64 * Address.pageSize)
      var wanted: WantedPage?
      context.pin()
      let failure = populateSome(
        AddressRange(start: position, end: stop), populating, hold, &wanted, context)
      context.unpin()
      if let failure { throw failure }
      if let wanted { return wanted }
      position = stop
    }
    return nil
  }

  private func populateSome(
    _ range: AddressRange, _ populating: Populating, _ hold: borrowing ReadHold,
    _ wanted: inout WantedPage?, _ context: Context
  ) -> Errno? {
    var position = range.start
    while position < range.end {
      guard let record = layout.pointee.find(position) else { return .noMemory }
      let end = min(range.end, record.pointee.end)
      guard let access = populating.access(record.pointee.flags),
        !record.pointee.flags.contains(.device)
      else { return .invalidArgument }
      while position < end {
        if let failure = bringIn(page: position, access, hold, &wanted, context) { return failure }
        if wanted != nil { return nil }
        position += Address.pageSize
      }
    }
    return nil
  }

  /// Makes one page present, as if it was accessed, and keeps it from being let go; `EFAULT` where there is none. The
  /// thread is pinned.
  ///
  /// - Parameter wanted: what has to be provided first, when nothing is held.
  func bringIn(
    page: Address, _ access: AccessKind, _ hold: borrowing ReadHold, _ wanted: inout WantedPage?,
    _ context: Context
  ) -> Errno? {
    switch resolve(page, access, hold, mayPublishIdentity: true, nil, context) {
    case .needsPage(let object, let index, let isRandom):
      wanted = WantedPage(address: page, object: object, index: index, isRandom: isRandom)
      return nil
    case .done, .doneAround:
      if access == .write { tables.takeBack(page, context) }
      return nil
    case .refused(.outOfMemory):
      wanted = WantedPage(address: page)
      return nil
    case .overLimit:
      wanted = WantedPage(address: page, isOverLimit: true)
      return nil
    case .refused, .unmapped: return .badAddress
    case .needsSpaceLock: preconditionFailure("a fault under the space lock asked for it")
    }
  }
}
