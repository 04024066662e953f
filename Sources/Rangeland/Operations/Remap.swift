// SPDX-License-Identifier: Apache-2.0
//
// Resizing and moving mappings. C17 and C18.
//
// Range: where the mapping is and would grow, and where it goes, for writing, in one step. Where it goes is not
// known before the mapping was looked at, unless the call says it: then what was locked is let go, a gap is
// reserved, both are locked, and all is looked at again.
// Linux: mm/mremap.c `do_mremap`, `remap_move`, `mremap_to`, `mremap_at`, `check_prep_vma`.

import RangeLocks
import SystemPackage

extension AddressSpace {
  /// Gives the pages of a mapping another number or another place; contents, rights and offsets follow
  /// (`mremap`).
  ///
  /// A mapping that shrinks loses its last pages, several mappings if the range covers them. One that grows does
  /// so where it is if the pages behind it are free. When the call returns, no thread can use pages that
  /// are gone from their old place. With a fixed target of the same length the range may cover several mappings,
  /// and holes between them: they keep their distances, and an error leaves those moved that came before.
  ///
  /// Takes the space lock for writing over the old place, over what it grows into, and over the new place; then over
  /// what a locked mapping has grown by for reading: that is brought in.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address in a mapping.
  ///   - length: in bytes, rounded up to pages. 0 maps the pages of a shared mapping a second time.
  ///   - newLength: in bytes, rounded up to pages.
  ///   - target: where it may go.
  ///   - keepingSource: it moves, and what it was stays mapped without its pages, and not locked
  ///     (`MREMAP_DONTUNMAP`). The length stays the same.
  /// - Returns: where it is now.
  /// - Throws: in Linux's order `EINVAL` for an unaligned address, a new length of 0 or beyond the space, a target
  ///   that is unaligned, beyond the space or overlaps the old place, or a source that is kept and resized or
  ///   does not move; `EFAULT` when nothing is mapped at `start`; `EPERM` for a sealed mapping; `EINVAL` for a
  ///   second mapping of private memory, for a special mapping whose source is to be kept, or a part of one
  ///   that may not be cut; `EFAULT` for a range that leaves its mapping, other than to shrink or to move as it is,
  ///   and for a special mapping that is to grow; `EINVAL` when its page offsets would wrap; `EAGAIN` for a locked
  ///   mapping that would grow beyond the limit of locked memory; `ENOMEM` when it may not move and cannot grow, when no gap is large enough, or without memory. As `unmap` for what is replaced
  ///   or cut off. On an error what a fixed target would replace may be gone, as in Linux.
  public func remap(
    at start: Address, length: UInt64, to newLength: UInt64, _ target: RemapTarget = .anywhere,
    keepingSource: Bool = false
  ) throws(Errno) -> Address {
    let before = LockMap.enter(.remap)
    defer { LockMap.leave(before) }
    let request = try RemapRequest(start, length, newLength, target, keepsSource: keepingSource)
    let context = reclaimer.context()
    defer { settleFiles(context) }
    if request.impliesAddress && !allowsRemap(sparing: 7, context) { throw .noMemory }
    guard let source = request.sourceRange else { throw .badAddress }
    var held = source
    var place: Reservation?
    while true {
      let step: RemapStep
      do {
        var hold = lockRemap(held, request.fixedRange ?? place?.range)
        context.pin()
        defer { context.unpin() }
        lockCells(held, &hold)
        if let range = request.fixedRange ?? place?.range { lockCells(range, &hold) }
        park.pass(.remap)
        var change = LayoutChange()
        var drops = FrameDropList(arena, accessors, context)
        if let wider = lockedSource(request, beyond: held) {
          step = .needsHold(wider)
        } else if request.movesAll {
          step = moveAll(request, hold, context, &change, &drops)
        } else {
          step = remapOne(request, place, hold, context, &change, &drops)
        }
        account(drops, context)
        end(&change, hold, context)
        drops.release()
      }
      // Nothing is held from here on. What was reserved and not used is given back.
      if let place {
        context.pin()
        cancel(place, context)
        context.unpin()
      }
      place = nil
      switch step {
      case .done(let address):
        bringInGrowth(request, at: address, context)
        return address
      case .refused(let errno): throw errno
      case .needsHold(let wider): held = wider
      case .needsPlace: place = try reservePlace(request, context)
      }
    }
  }

  /// Brings in what a locked mapping has grown by (Linux `vrm.populate_expand`).
  private func bringInGrowth(
    _ request: RemapRequest, at address: Address, _ context: Context
  ) {
    if request.newLength <= request.oldLength { return }
    context.pin()
    let isLocked = layout.pointee.find(address)?.pointee.flags.contains(.locked) ?? false
    context.unpin()
    if !isLocked { return }
    bringIn(
      AddressRange(start: address + request.oldLength, end: address + request.newLength))
  }

  private func lockRemap(_ source: AddressRange, _ target: AddressRange?) -> WriteHold {
    guard let target else { return lock.write(source, .remap) }
    return lock.write(source, and: target, .remap)
  }

  /// The source with the whole of locked mappings that stay but lose their lock, if that is more than `held`
  /// (Linux `dontunmap_complete` takes the lock off the whole VMA).
  private func lockedSource(_ request: RemapRequest, beyond held: AddressRange) -> AddressRange? {
    guard request.keepsSource else { return nil }
    var wanted = held
    let last = min(request.start &+ request.oldLength, Address.spaceEnd) &- 1
    func add(_ edge: Address) {
      guard let record = layout.pointee.find(edge), record.pointee.flags.contains(.locked) else {
        return
      }
      wanted = AddressRange(
        start: min(wanted.start, record.pointee.start), end: max(wanted.end, record.pointee.end))
    }
    add(request.start)
    add(max(last, request.start))
    return wanted == held ? nil : wanted
  }

  /// Chooses and reserves where a mapping may move. Takes no lock but leaf latches.
  private func reservePlace(
    _ request: RemapRequest, _ context: Context
  ) throws(Errno) -> Reservation {
    var search = PlacementRequest(length: request.newLength, placement: placement)
    context.pin()
    defer { context.unpin() }
    if request.keepsSource && request.newAddress != 0 {
      search.hint = request.newAddress
    } else {
      let isShared = layout.pointee.find(request.start)?.pointee.flags.contains(.shared) ?? false
      if !isShared { alignToHugePages(&search) }
    }
    var change = LayoutChange()
    // What it is does not matter to a reservation; this merges with nothing.
    let outcome = try layout.pointee.place(
      search, VMAAttributes(flags: .special), context, &change
    ) { _ in false }
    count(&change, context)
    change.dispose(context)
    switch outcome {
    case .reserved(let reservation): return reservation
    case .placed: preconditionFailure("AddressSpace.remap: placed without a lock")
    }
  }

  /// A call on one VMA, or that shrinks several.
  private func remapOne(
    _ request: RemapRequest, _ place: Reservation?, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ drops: inout FrameDropList
  ) -> RemapStep {
    do throws(Errno) {
      let record = try checkSource(request)
      let start = request.start
      if !request.impliesAddress {
        if request.newLength == request.oldLength { return .done(start) }
        if request.newLength < request.oldLength {
          try cutTail(request, hold, context, &change, &drops)
          return .done(start)
        }
        let mayMove = allowsRemap(sparing: 5, context)
        return try admittingGrowth(request, record.pointee.flags, &change, context) {
          (change) throws(Errno) in
          if try growInPlace(request, record, hold, context, &change) { return .done(start) }
          if !request.mayMove || !mayMove { throw .noMemory }
          guard let place else { return .needsPlace }
          return try move(request, to: place.range.start, place, hold, context, &change, &drops)
        }
      }
      if request.isFixed {
        return try moveFixed(request, hold, context, &change, &drops)
      }
      guard let place else { return .needsPlace }
      return try moveWithinLimits(
        request, to: place.range.start, place, record.pointee.flags, hold, context, &change, &drops)
    } catch {
      return .refused(error)
    }
  }

  /// Moves all VMAs of the range, one after the other (Linux `remap_move`).
  private func moveAll(
    _ request: RemapRequest, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ drops: inout FrameDropList
  ) -> RemapStep {
    let (end, overflow) = request.start.addingReportingOverflow(request.oldLength)
    var position = request.start
    var isFirst = true
    while !overflow, position < end, let record = layout.pointee.findNext(position),
      record.pointee.start < end
    {
      if isFirst && record.pointee.start > position { break }
      var piece = request
      piece.start = max(position, record.pointee.start)
      piece.oldLength = min(end, record.pointee.end) - piece.start
      piece.newLength = piece.oldLength
      piece.newAddress = request.newAddress + (piece.start - request.start)
      do throws(Errno) {
        _ = try checkSource(piece)
        _ = try moveFixed(piece, hold, context, &change, &drops)
      } catch {
        return .refused(error)
      }
      isFirst = false
      position = piece.start + piece.oldLength
    }
    return isFirst ? .refused(.badAddress) : .done(request.newAddress)
  }

  /// What Linux checks of the VMA before it changes anything (`check_prep_vma`).
  private func checkSource(_ request: RemapRequest) throws(Errno) -> RecordRef {
    guard let record = layout.pointee.find(request.start) else { throw .badAddress }
    let flags = record.pointee.flags
    if flags.contains(.sealed) { throw .notPermitted }
    if request.newLength <= request.oldLength && !request.impliesAddress { return record }
    if request.oldLength == 0 && flags.isDisjoint(with: [.shared, .mayShare]) {
      throw .invalidArgument
    }
    if request.keepsSource && flags.contains(.special) { throw .invalidArgument }
    let kept = min(request.oldLength, request.newLength)
    if kept > record.pointee.end - request.start { throw .badAddress }
    if kept == request.newLength { return record }
    let offset = record.pointee.pageOffset(at: request.start)
    if offset.addingReportingOverflow(request.newLength >> 12).overflow { throw .invalidArgument }
    if flags.contains(.special) { throw .badAddress }
    try refuseGrowth(of: (request.newLength - request.oldLength) >> 12, flags)
    return record
  }

  /// Removes what is behind the new end.
  func cutTail(
    _ request: RemapRequest, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ drops: inout FrameDropList
  ) throws(Errno) {
    let tail = try Self.unmapRange(
      request.start + request.newLength, request.oldLength - request.newLength)
    try removeWithin(tail, hold, context, &change, &drops)
  }

  /// Extends the VMA if the range ends with it and the pages behind are free; it merges with the VMA behind
  /// them if that continues it (Linux `vma_merge_extend`). `false` = it cannot.
  private func growInPlace(
    _ request: RemapRequest, _ record: RecordRef, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) -> Bool {
    let end = record.pointee.end
    let growth = request.newLength - request.oldLength
    guard end - request.start == request.oldLength, growth <= Address.spaceEnd - end else {
      return false
    }
    let range = AddressRange(start: end, end: end + growth)
    LockMap.observe(.anonymousIdentity, hold, range)
    var attributes = VMAAttributes(
      flags: record.pointee.flags, pageOffset: record.pointee.pageOffset(at: end),
      backing: record.pointee.backing, anonymous: record.pointee.anonymous)
    attributes.growsInPlace = true
    do throws(Errno) {
      try layout.pointee.insert(range, attributes, replacing: false, hold, context, &change)
      return true
    } catch {
      if error == .fileExists { return false }
      throw error
    }
  }

  /// Removes a range inside a hold: layout, then page tables. What the pages held goes to `drops`.
  ///
  /// - Parameter reserving: what was mapped is reserved for what comes next.
  func removeWithin(
    _ range: AddressRange, reserving: Bool = false, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ drops: inout FrameDropList
  ) throws(Errno) {
    try refuseSealed(range, hold, context, &change)
    try refuseCut(range)
    if reserving {
      // The limit of mappings leaves room for a cut: see `allowsRemap`.
      try layout.pointee.reserve(range, hold, context, &change)
    } else if hasLimits {
      try removeLimited(range, hold, context, &change)
    } else {
      try layout.pointee.remove(range, hold, context, &change)
    }
    LockMap.observe(.pageTableEntry, hold, range)
    tables.zap(range, into: &drops, freeingTables: true, context)
    drops.shootdown()
  }
}

/// What became of an attempt.
enum RemapStep {
  case done(Address)
  case refused(Errno)
  /// It has to move, and has no place yet.
  case needsPlace
  /// More has to be held.
  case needsHold(AddressRange)
}
