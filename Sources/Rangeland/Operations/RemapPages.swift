// SPDX-License-Identifier: Apache-2.0
//
// Other pages of an object at the same addresses.
//
// Range: [start, end), for writing.
// Linux: mm/mmap.c `remap_file_pages`, which has been a mapping of its own since 4.0.

import SystemPackage

extension AddressSpace {
  /// Maps other pages of the object that is mapped shared at `start` there (`remap_file_pages`): what a fixed mapping of
  /// the same file, with the same rights, would do. The mapping is split; its pages are populated.
  ///
  /// Takes the space lock for writing over the range.
  ///
  /// - Parameters:
  ///   - start: rounded down to a page.
  ///   - length: in bytes, rounded down to pages.
  ///   - pageOffset: of the first page in the object.
  /// - Throws: `EINVAL` for no length, an offset or a range that wraps, and unless the range is mapped shared, without a
  ///   hole, from one object with the same attributes; `EOVERFLOW` for an offset that no file has; `ENOMEM`.
  public func remapPages(at start: Address, length: UInt64, pageOffset: UInt64) throws(Errno) {
    let before = LockMap.enter(.remapPages)
    defer { LockMap.leave(before) }
    let start = start.pageStart
    let length = length & ~4095
    let (end, overflow) = start.addingReportingOverflow(length)
    guard !overflow, end > start, !pageOffset.addingReportingOverflow(length >> 12).overflow,
      start < Address.spaceEnd, end <= Address.spaceEnd
    else { throw .invalidArgument }
    let range = AddressRange(start: start, end: end)
    let context = reclaimer.context()
    defer { settleFiles(context) }
    try remapHeld(range, pageOffset, context)
    // As Linux: what cannot be populated is no error.
    bringIn(range)
  }

  private func remapHeld(
    _ range: AddressRange, _ pageOffset: UInt64, _ context: Context
  ) throws(Errno) {
    var hold = lock.write(range, .remapPages)
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.remapPages)
    LockMap.observe(.layout, hold, range)
    let record = try checkRemapped(range)
    let backing = record.pointee.backing.unsafelyUnwrapped
    LockMap.observe(.futureLock, hold, range)
    // A new mapping with the old one's rights; what else was advised of it is gone.
    var attributes = withFutureLock(
      VMAAttributes(
        flags: record.pointee.flags.intersection([
          .read, .write, .execute, .shared, .mayRead, .mayWrite, .mayExecute, .mayShare, .locked,
        ])))
    try refuseLock(
      of: range.lengthInPages, attributes.flags, isAsked: record.pointee.flags.contains(.locked),
      context)
    let room = UInt64(Int64.max)
    if range.length > room || pageOffset > (room - range.length) >> 12 { throw .overflow }
    var change = LayoutChange()
    do throws(Errno) {
      try refuseSealed(range, hold, context, &change)
    } catch {
      end(&change, hold, context)
      throw error
    }
    attributes.pageOffset = pageOffset
    attributes.backing = ObjectMapping.make(
      backing.pointee.object, space: identity, place: place, opener: backing.pointee.opener,
      deltaPages: range.start.pageNumber &- pageOffset,
      errorCursor: backing.pointee.errorCursor.load(ordering: .relaxed), context)
    guard let fresh = attributes.backing else {
      end(&change, hold, context)
      throw .noMemory
    }
    var failure: Errno?
    do throws(Errno) {
      if hasLimits {
        try insertLimited(range, attributes, replacing: true, hold, &change, context)
      } else {
        try layout.pointee.insert(range, attributes, replacing: true, hold, context, &change)
      }
    } catch {
      failure = error
    }
    var drops = FrameDropList(arena, accessors, context)
    if failure == nil { clearPages(range, hold, &drops, context) }
    end(&change, hold, context)
    drops.release()
    fresh.release(context)
    if let failure { throw failure }
  }

  /// The first of the VMAs of a range, all of which are shared, of one file, with the same attributes.
  private func checkRemapped(_ range: AddressRange) throws(Errno) -> RecordRef {
    guard let first = layout.pointee.find(range.start), first.pointee.flags.contains(.shared),
      let backing = first.pointee.backing
    else { throw .invalidArgument }
    var position = first.pointee.end
    while position < range.end {
      guard let next = layout.pointee.find(position),
        next.pointee.flags.withoutPolicy == first.pointee.flags.withoutPolicy,
        let other = next.pointee.backing, other.pointee.object == backing.pointee.object,
        other.pointee.opener == backing.pointee.opener
      else { throw .invalidArgument }
      position = next.pointee.end
    }
    return first
  }
}

extension VMAFlags {
  /// Linux keeps the policy beside the flags, and does not compare it here.
  fileprivate var withoutPolicy: VMAFlags {
    var flags = self
    flags.policy = 0
    return flags
  }
}
