// SPDX-License-Identifier: Apache-2.0
//
// How operations end: what they changed is counted, their hold ends, and only then is let go what they
// dropped (rule 6).

extension AddressSpace {
  /// Ends a change of the layout: counts it, ends the hold, then lets go of the records it dropped.
  ///
  /// - Precondition: the thread is pinned and has been since the change.
  @inline(__always)
  func end(_ change: inout LayoutChange, _ hold: consuming WriteHold, _ context: Context) {
    change.tellSpecials()
    count(&change, context)
    var cell = change.newCells
    while let current = cell {
      cell = current.pointee.nextLocked
      hold.adopt(current)
    }
    hold.release()
    change.dispose(context)
  }

  /// Adds the differences of a change to the sizes of the space. By reference, and member by member: a copy would load
  /// wide what was just stored narrow.
  @inline(__always)
  func count(_ change: inout LayoutChange, _ context: Context) {
    LockMap.observe(.accounting, .credit, .write)
    if change.isSettled { change.leaveOutSettled() }
    counters.move(.mapCount, Int64(change.counts.areas), context)
    counters.move(.totalVM, Int64(change.counts.totalPages), context)
    counters.move(.dataVM, Int64(change.counts.dataPages), context)
    counters.move(.committed, Int64(change.counts.accountedPages), context)
    if change.counts.lockedPages != 0 {
      counters.move(.lockedVM, Int64(change.counts.lockedPages), context)
    }
    if change.counts.executablePages != 0 {
      counters.add(.execVM, Int64(change.counts.executablePages), context)
    }
    if change.counts.stackPages != 0 {
      counters.add(.stackVM, Int64(change.counts.stackPages), context)
    }
  }

  /// Counts what a change has done so far, for limits that are looked at before it ends.
  func countNow(_ change: inout LayoutChange, _ context: Context) {
    if !hasLimits { return }
    var done = change.counts.limited
    done -= change.settled
    counters.move(.mapCount, Int64(done.areas), context)
    counters.move(.totalVM, Int64(done.totalPages), context)
    counters.move(.dataVM, Int64(done.dataPages), context)
    counters.move(.lockedVM, Int64(done.lockedPages), context)
    counters.move(.committed, Int64(done.accountedPages), context)
    change.settle(done)
  }

  /// Takes the pages of a range out of the page tables. When it returns nobody can use them; the
  /// caller releases the drop list after its hold has ended.
  @inline(__always)
  func clearPages(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ drops: inout FrameDropList,
    _ context: Context
  ) {
    LockMap.observe(.pageTableEntry, hold, range)
    tables.zap(range, into: &drops, freeingTables: true, context)
    drops.shootdown()
    account(drops, context)
  }

  /// Takes what a drop list took out of the page tables off the resident counters.
  ///
  /// - Parameter replaced: how many of the pages another one has come for, by a charge that has left them out.
  @inline(__always)
  func account(
    _ drops: borrowing FrameDropList, replaced: Int64 = 0, _ context: Context
  ) {
    let anonymous = drops.anonymousPages
    let file = drops.filePages
    let shared = drops.sharedMemoryPages
    if anonymous | file | shared == 0 { return }
    accountTaken(anonymous, file, shared, drops.residentPages - replaced, context)
  }

  // Not inlined: where it is inlined for each kind of advice the compiler no longer inlines the advice.
  @inline(never)
  private func accountTaken(
    _ anonymous: Int, _ file: Int, _ shared: Int, _ resident: Int64, _ context: Context
  ) {
    counters.noteHighWater(context)
    if anonymous != 0 { counters.add(.rssAnonymous, -Int64(anonymous), context) }
    if file != 0 { counters.add(.rssFile, -Int64(file), context) }
    if shared != 0 { counters.add(.rssSharedMemory, -Int64(shared), context) }
    counters.removeResident(resident, context)
    LockMap.observe(.residency, .credit, .write)
  }
}
