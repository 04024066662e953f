// SPDX-License-Identifier: Apache-2.0
//
// A copy of the whole space, whose private pages are copied on write.
//
// Range: the whole space, for writing, and under `.perVMA` every VMA's word. "Is it necessary?" the list of 2017
// asks: yes. Between the first page that is shared and the last no thread may write to one of them, or fault one
// in: the child would have a later state of one page beside an earlier one of another (D-1).
// Linux: kernel/fork.c `dup_mm`, mm/mmap.c `dup_mmap`, mm/rmap.c `anon_vma_fork`.

import SystemPackage

extension AddressSpace {
  /// Makes a copy of the space: the same mappings at the same addresses, with the same content, as of one instant.
  ///
  /// Private pages are shared until one of the two writes; shared mappings, of files too, stay shared. Left out are
  /// mappings with `Advice.dontFork`; those with `wipeOnFork` are empty; nothing is locked in memory. Limits, policies,
  /// the heap and its break, markers, and the lock's policy are the parent's; the owner's word is 0. Pages that are pinned
  /// are copied at once.
  ///
  /// Takes the space lock for writing over the whole space; the copy takes time by the mappings and by the
  /// present private pages. The child is known to nobody before the call returns.
  ///
  /// - Returns: the child, with the same `memory`.
  /// - Throws: `ENOMEM`; the parent is as before.
  public func fork() throws(Errno) -> AddressSpace {
    let before = LockMap.enter(.fork)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    let child = try AddressSpace(
      policy, placement, memory, limits, layout.pointee.usesCache, lock.pointee.ledger != nil,
      forkedFrom: self)
    var hold = lock.write(.wholeSpace, .fork)
    // Whoever finds the child through an object that it maps waits, as for the parent. Nobody has it yet.
    let childHold = child.lock.tryWrite(.wholeSpace, .fork)!
    context.pin()
    lockCells(.wholeSpace, &hold)
    park.pass(.fork)
    child.threadPolicies.own = threadPolicies.own
    child.notes.write(markers, child.heap)
    child.heap.dataBytes.store(heap.dataBytes.load(ordering: .relaxed), ordering: .relaxed)
    child.heap.start.store(heap.start.load(ordering: .relaxed), ordering: .relaxed)
    child.heap.programBreak.store(heap.programBreak.load(ordering: .relaxed), ordering: .relaxed)
    child.vdso.store(vdso.load(ordering: .relaxed), ordering: .relaxed)
    child.hasObjectGuards.store(
      hasObjectGuards.load(ordering: .relaxed), ordering: .relaxed)
    child.hasSeals.store(hasSeals.load(ordering: .relaxed), ordering: .relaxed)
    let isDone = copyMappings(to: child, hold, childHold, context)
    context.unpin()
    childHold.release()
    hold.release()
    // A child that failed is taken down under its own lock, so only now.
    return try withExtendedLifetime(child) { () throws(Errno) in
      if !isDone { throw .noMemory }
      return child
    }
  }

  /// Copies all VMAs and then takes the last right to write from this space's threads. `false` = no memory.
  private func copyMappings(
    to child: AddressSpace, _ hold: borrowing WriteHold, _ childHold: borrowing WriteHold,
    _ context: Context
  ) -> Bool {
    var change = LayoutChange()
    var copied = PageTables.Copied()
    var drops = FrameDropList(arena, accessors, context)
    var isDone = true
    layout.pointee.forEachRecord(in: .wholeSpace) { record, _ in
      do throws(Errno) {
        try copy(record, to: child, hold, childHold, context, &change, &copied, &drops)
      } catch {
        isDone = false
      }
      return isDone
    }
    // One for all pages: the instant of which the child is a copy.
    drops.shootdown()
    drops.release()
    if isDone && copied.hasPinned { isDone = copyPinned(to: child, &copied, context) }
    child.count(&change, context)
    child.count(copied, context)
    var cell = change.newCells
    while let current = cell {
      cell = current.pointee.nextLocked
      current.pointee.endWrite()
    }
    change.dispose(context)
    return isDone
  }

  private func copy(
    _ record: RecordRef, to child: AddressSpace, _ hold: borrowing WriteHold,
    _ childHold: borrowing WriteHold, _ context: Context, _ change: inout LayoutChange,
    _ copied: inout PageTables.Copied, _ drops: inout FrameDropList
  ) throws(Errno) {
    let range = record.pointee.range
    var flags = record.pointee.flags
    if flags.contains(.dontFork) { return }
    flags.subtract(VMAFlags.locked.union(.lockOnFault))
    var attributes = VMAAttributes(flags: flags, pageOffset: record.pointee.pageOffset)
    defer {
      attributes.backing?.release(context)
      attributes.anonymous?.release(context)
    }
    if let backing = record.pointee.backing {
      if backing.pointee.object.pointee.file != nil { memory.files.register(child) }
      attributes.backing = ObjectMapping.make(
        backing.pointee.object, space: child.identity, place: child.place,
        opener: backing.pointee.opener, deltaPages: backing.pointee.deltaPages,
        errorCursor: backing.pointee.errorCursor.load(ordering: .relaxed), context)
      if attributes.backing == nil { throw .noMemory }
    }
    LockMap.observe(.anonymousIdentity, hold, range)
    let anonymous = flags.contains(.wipeOnFork) ? nil : record.pointee.anonymous
    if let anonymous {
      attributes.anonymous = ObjectMapping.make(
        anonymous.pointee.object, space: child.identity, deltaPages: anonymous.pointee.deltaPages,
        branch: ObjectMapping.newBranch(), context)
      if attributes.anonymous == nil { throw .noMemory }
    }
    try child.layout.pointee.append(
      range, attributes, childHold, context, &change)
    if flags.contains(.special) { record.tellSpecialOpened() }
    // Where nobody has written or put a guard, a fault finds the pages where this space found them (Linux `vma_needs_copy`).
    if anonymous == nil, !hasObjectGuard(range, attributes.backing, context) { return }
    LockMap.observe(.pageTableEntry, hold, range)
    LockMap.observe(.pageProtection, hold, range)
    let isDone = tables.copy(
      range, to: child.tables, isShared: flags.contains(.shared), &copied, &drops, context)
    if !isDone { throw .noMemory }
  }

  /// Whether a page of an object's mapping is guarded.
  private func hasObjectGuard(
    _ range: AddressRange, _ backing: MappingRef?, _ context: Context
  ) -> Bool {
    guard backing != nil, hasObjectGuards.load(ordering: .relaxed) else { return false }
    var found = false
    tables.forEachEntry(in: range, context) { if $1.isGuard { found = true } }
    return found
  }

  private func copyPinned(
    to child: AddressSpace, _ copied: inout PageTables.Copied, _ context: Context
  ) -> Bool {
    var isDone = true
    child.layout.pointee.forEachRecord(in: .wholeSpace) { record, _ in
      guard let owner = record.pointee.anonymous, !record.pointee.flags.contains(.shared) else {
        return true
      }
      isDone = tables.copyPinned(
        record.pointee.range, to: child.tables, owner, &copied, arena, context)
      return isDone
    }
    return isDone
  }

  private func count(_ copied: PageTables.Copied, _ context: Context) {
    LockMap.observe(.residency, .credit, .write)
    counters.add(.rssAnonymous, Int64(copied.anonymousPages), context)
    counters.add(.rssFile, Int64(copied.filePages), context)
    counters.add(.rssSharedMemory, Int64(copied.sharedMemoryPages), context)
    counters.addResident(
      Int64(copied.anonymousPages + copied.filePages + copied.sharedMemoryPages), context)
  }
}
