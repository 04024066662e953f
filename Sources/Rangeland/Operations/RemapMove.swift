// SPDX-License-Identifier: Apache-2.0
//
// Moving a VMA, or a part of one.
//
// Linux: mm/mremap.c `move_vma`, `copy_vma_and_data`, `dontunmap_complete`; mm/vma.c `copy_vma`.

import CRangeland
import RangeLocks
import SystemPackage

extension AddressSpace {
  /// Moves to a known place, which is emptied first, and shrinks on the way (Linux `mremap_to`).
  func moveFixed(
    _ request: RemapRequest, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ drops: inout FrameDropList
  ) throws(Errno) -> RemapStep {
    let target = AddressRange(
      start: request.newAddress, end: request.newAddress + request.newLength)
    // Nobody chooses what is free between one mapping and the next.
    try removeWithin(target, reserving: true, hold, context, &change, &drops)
    do throws(Errno) {
      return try moveIntoReserved(request, target, hold, context, &change, &drops)
    } catch {
      while !layout.pointee.giveUp(target, hold, context, &change) { rl_yield() }
      throw error
    }
  }

  private func moveIntoReserved(
    _ request: RemapRequest, _ target: AddressRange, _ hold: borrowing WriteHold,
    _ context: Context, _ change: inout LayoutChange, _ drops: inout FrameDropList
  ) throws(Errno) -> RemapStep {
    // The target may have been a part of the same VMA.
    guard let record = layout.pointee.find(request.start) else { throw .badAddress }
    let flags = record.pointee.flags
    var request = request
    if request.newLength < request.oldLength {
      try cutTail(request, hold, context, &change, &drops)
      request.oldLength = request.newLength
    }
    // What went makes room.
    countNow(&change, context)
    return try moveWithinLimits(
      request, to: target.start, nil, flags, hold, context, &change, &drops)
  }

  /// Moves `oldLength` bytes from `start` to a place that is empty, `newLength` bytes long and held.
  ///
  /// - Parameter place: the reservation that the place is, if it is one.
  func move(
    _ request: RemapRequest, to address: Address, _ place: Reservation?,
    _ hold: borrowing WriteHold, _ context: Context, _ change: inout LayoutChange,
    _ drops: inout FrameDropList
  ) throws(Errno) -> RemapStep {
    let target = AddressRange(start: address, end: address + request.newLength)
    guard let record = layout.pointee.find(request.start) else { throw .badAddress }
    let isSpecial = record.pointee.flags.contains(.special)
    if record.forbidsCut(request.start, request.start + request.oldLength) {
      throw .invalidArgument
    }
    // Nothing of the source is held beyond the range, so what is needed of the record is read once.
    let attributes = try movedAttributes(record, request.start, to: address, hold, context)
    defer {
      attributes.backing?.release(context)
      attributes.anonymous?.release(context)
    }
    if let place {
      // A fixed mapping has taken it: look for another.
      let isThere = try layout.pointee.fill(place, attributes, hold, context, &change)
      if !isThere { return .needsPlace }
    } else {
      try layout.pointee.insert(target, attributes, replacing: false, hold, context, &change)
    }
    LockMap.observe(.vmaFlags, hold, target)
    LockMap.observe(.vmaOffset, hold, target)
    if isSpecial { record.tellSpecialOpened() }
    if request.oldLength == 0 { return .done(address) }
    let source = AddressRange(start: request.start, end: request.start + request.oldLength)
    LockMap.observe(.pageTableEntry, hold, source)
    LockMap.observe(.pageTableEntry, hold, target)
    guard tables.reserve(toMove: source, to: address, context) else {
      // As Linux: what was made goes again.
      try layout.pointee.remove(target, hold, context, &change)
      throw .noMemory
    }
    movePages(source, to: address, attributes.backing, &drops, context)
    let moved = AddressRange(start: address, end: address + request.oldLength)
    if request.keepsSource {
      leaveBehind(source, hold, context, &change)
    } else {
      do throws(Errno) {
        try layout.pointee.remove(source, hold, context, &change)
      } catch {
        // No memory for the records of a cut: all goes back. If there is no memory for that either the source
        // stays mapped, empty, which is what Linux does.
        if tables.reserve(toMove: moved, to: source.start, context) {
          movePages(moved, to: source.start, attributes.backing, &drops, context)
          try layout.pointee.remove(target, hold, context, &change)
          throw error
        }
      }
    }
    if isSpecial { specialMoved(record, source, moved, hold) }
    // Tables that are empty now go; there is nothing else in them.
    tables.zap(source, into: &drops, freeingTables: true, context)
    drops.shootdown()
    return .done(address)
  }

  /// Moves the pages. None of shared memory is taken out of its object meanwhile: whoever does would find it at neither
  /// place (Linux `take_rmap_locks`). Files do that with the range of each mapping held.
  private func movePages(
    _ source: AddressRange, to target: Address, _ backing: MappingRef?,
    _ drops: inout FrameDropList, _ context: Context
  ) {
    guard let object = backing?.pointee.object, object.pointee.file == nil else {
      return tables.move(source, to: target, &drops, context)
    }
    object.pointee.removalLatch.lock(.objectRemoval)
    tables.move(source, to: target, &drops, context)
    object.pointee.removalLatch.unlock(.objectRemoval)
  }

  /// What the VMA is at its new place: the same object and identity at another distance, with the same offsets.
  /// Private memory that was never written to has no offset worth keeping. The references are the caller's.
  private func movedAttributes(
    _ record: RecordRef, _ start: Address, to address: Address, _ hold: borrowing WriteHold,
    _ context: Context
  ) throws(Errno) -> VMAAttributes {
    LockMap.observe(.anonymousIdentity, hold, AddressRange(pageOf: start))
    var attributes = VMAAttributes(flags: record.pointee.flags)
    let (backing, anonymous) = (record.pointee.backing, record.pointee.anonymous)
    if backing == nil && anonymous == nil { return attributes }
    let offset = record.pointee.pageOffset(at: start)
    attributes.pageOffset = offset
    let delta = address.pageNumber &- offset
    if let backing {
      attributes.backing = ObjectMapping.make(
        backing.pointee.object, space: identity, place: place, opener: backing.pointee.opener,
        deltaPages: delta, errorCursor: backing.pointee.errorCursor.load(ordering: .relaxed),
        context)
      if attributes.backing == nil { throw .noMemory }
    }
    if let anonymous {
      attributes.anonymous = ObjectMapping.make(
        anonymous.pointee.object, space: identity, deltaPages: delta,
        branch: anonymous.pointee.branch, context)
      if attributes.anonymous == nil {
        attributes.backing?.release(context)
        throw .noMemory
      }
    }
    return attributes
  }

  /// What stays of a source that is kept (Linux `dontunmap_complete`): the whole VMA is not locked any more, and
  /// has no anonymous identity if all of it has moved. It does not merge.
  private func leaveBehind(
    _ source: AddressRange, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) {
    guard let record = layout.pointee.find(source.start) else { return }
    let flags = record.pointee.flags.subtracting([.locked, .lockOnFault])
    let isWhole = record.pointee.range == source
    // One that the new place has merged with, and others behind it, is not ours as a whole.
    guard hold.range.contains(record.pointee.range) else { return }
    if flags == record.pointee.flags && !(isWhole && record.pointee.anonymous != nil) { return }
    do throws(Errno) {
      try layout.pointee.replace(source.start, hold, context, &change) { draft in
        draft.pointee.flags = flags
        if isWhole { draft.pointee.anonymous = nil }
      }
    } catch {
      // No memory for a record: it keeps its lock and its identity. Linux needs none for that; nothing is wrong
      // but the count of locked pages.
    }
  }
}
