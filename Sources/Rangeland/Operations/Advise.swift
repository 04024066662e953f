// SPDX-License-Identifier: Apache-2.0
//
// Advice about pages.
//
// Range: [start, end): for writing when attributes of mappings change (AdviseAttributes.swift), for reading when
// pages do: a page is as it was or as advised for a concurrent access, and each page-table entry changes under
// its table's latch. Under `.perVMA` the word of the VMA is enough for DONTNEED and FREE when one VMA covers the
// range.
// Linux: mm/madvise.c `do_madvise`, `madvise_walk_vmas`, `madvise_vma_behavior`.

import SystemPackage

extension AddressSpace {
  /// Says how a range is used, or what is to become of its pages (`madvise`): see `Advice` for each.
  ///
  /// Takes the space lock over the range, for writing when the advice is an attribute of mappings, else for
  /// reading.
  ///
  /// - Parameters:
  ///   - advice: what is said of the range.
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  /// - Throws: `EINVAL` for an unaligned start, a length that wraps, and where `Advice` says so; `EPERM` for a
  ///   sealed mapping whose owner may not write to it, if the advice destroys contents; `ENOMEM` when a part
  ///   of the range is not mapped, after all that is mapped was done; `EAGAIN` without memory for the records
  ///   of a split. Populating stops at the first page that cannot be: `ENOMEM` for a hole or without memory,
  ///   `EINVAL` for a mapping without the right, `EFAULT` for a page that is guarded or does not exist. What
  ///   comes before an error is done.
  public func advise(_ advice: Advice, at start: Address, length: UInt64) throws(Errno) {
    guard start.isPageAligned, let rounded = length.roundedUpToPage else {
      throw .invalidArgument
    }
    let (end, overflow) = start.addingReportingOverflow(rounded)
    guard !overflow else { throw .invalidArgument }
    if end == start { return }
    guard start < Address.spaceEnd else { throw .noMemory }
    let range = AddressRange(start: start, end: min(end, Address.spaceEnd))
    switch advice {
    case .populateRead: try populate(range, .reading)
    case .populateWrite: try populate(range, .writing)
    case _ where advice.isAttribute: try adviseAttribute(advice, range)
    case .dontNeed, .dontNeedLocked: try advisePages(advice, range, .dontNeed)
    case .willNeed, .remove: try adviseObjects(advice, range)
    default: try advisePages(advice, range, .advise)
    }
    // What lies beyond the end of the space is a hole, found last.
    if end > Address.spaceEnd { throw .noMemory }
  }

  private func advisePages(
    _ advice: Advice, _ range: AddressRange, _ operation: OperationKind
  ) throws(Errno) {
    let before = LockMap.enter(operation)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    if operation == .dontNeed || advice == .free,
      let hold = readCell(covering: range, operation, context)
    {
      park.pass(operation)
      LockMap.observe(.layout, hold, range)
      // It is covered, and stays so while the word is held.
      return try act(advice, range, layout.pointee.find(range.start)!, hold, context)
    }
    context.unpin()
    let hold = lock.read(range, operation)
    context.pin()
    park.pass(operation)
    LockMap.observe(.layout, hold, range)
    var next = range.start
    var isComplete = true
    while next < range.end {
      guard let record = layout.pointee.findNext(next), record.pointee.start < range.end else {
        throw .noMemory
      }
      if record.pointee.start > next { isComplete = false }
      let piece = AddressRange(
        start: max(next, record.pointee.start), end: min(range.end, record.pointee.end))
      try act(advice, piece, record, hold, context)
      next = piece.end
    }
    if !isComplete { throw .noMemory }
  }

  /// Does one VMA's part.
  private func act(
    _ advice: Advice, _ piece: AddressRange, _ record: RecordRef, _ hold: borrowing ReadHold,
    _ context: Context
  ) throws(Errno) {
    LockMap.observe(.vmaFlags, hold, piece)
    let flags = record.pointee.flags
    if record.pointee.isSealed(against: advice) { throw .notPermitted }
    // Linux `VM_PFNMAP`: there is no page to do anything to.
    if flags.contains(.device) && advice.isForMemory { throw .invalidArgument }
    if flags.contains(.locked) && !advice.isForLocked { throw .invalidArgument }
    switch advice {
    case .dontNeed, .dontNeedLocked:
      changePages(piece, hold, context) {
        tables.zap(piece, into: &$0, freeingTables: false, context)
      }
    case .free:
      if record.pointee.backing != nil { throw .invalidArgument }
      changePages(piece, hold, context) { tables.releaseLazily(piece, into: &$0, context) }
    case .cold: changePages(piece, hold, context) { tables.age(piece, into: &$0, context) }
    case .pageOut:
      changePages(piece, hold, context) { tables.evict(piece, into: &$0, context) }
      if let backing = record.pointee.backing, backing.pointee.object.pointee.file != nil {
        let first = backing.pageIndex(piece.start)
        _ = backing.pointee.object.evict(
          first..<first + piece.lengthInPages, atMost: .max, context)
      }
    case .installGuard:
      if flags.contains(.special) { throw .invalidArgument }
      try installGuards(piece, record, hold, context)
    case .removeGuard:
      if flags.contains(.special) { throw .invalidArgument }
      changePages(piece, hold, context) { _ in tables.removeGuards(piece, context) }
    case .collapse: throw .invalidArgument
    default: break
    }
  }

  /// Changes page-table entries; when it returns nobody can use what was taken away.
  @inline(__always)
  func changePages(
    _ piece: AddressRange, _ hold: borrowing ReadHold, _ context: Context,
    _ change: (inout FrameDropList) -> Void
  ) {
    LockMap.observe(.pageTableEntry, hold, piece)
    var drops = FrameDropList(arena, accessors, context)
    change(&drops)
    drops.shootdown()
    account(drops, context)
    drops.release()
  }

  /// Guards are something in the page tables of private memory, so that it has an identity from then on, as if
  /// it was written to (Linux `madvise_guard_install`); that of an object has none before it is, and a fork has to look.
  private func installGuards(
    _ piece: AddressRange, _ record: RecordRef, _ hold: borrowing ReadHold, _ context: Context
  ) throws(Errno) {
    if record.pointee.backing != nil {
      hasObjectGuards.store(true, ordering: .relaxed)
    } else if record.pointee.anonymous == nil {
      guard publishIdentity(record, piece.start, hold, context) != nil else { throw .noMemory }
    }
    var isDone = true
    changePages(piece, hold, context) {
      isDone = tables.installGuards(piece, into: &$0, context)
    }
    if !isDone { throw .noMemory }
  }
}

extension Advice {
  /// Whether it acts on pages of memory, which devices have none of.
  fileprivate var isForMemory: Bool {
    switch self {
    case .dontNeed, .dontNeedLocked, .cold, .pageOut: true
    default: false
    }
  }

  /// Whether it is given for locked mappings too.
  fileprivate var isForLocked: Bool {
    switch self {
    case .dontNeed, .free, .remove, .cold, .pageOut, .installGuard: false
    default: true
    }
  }
}
