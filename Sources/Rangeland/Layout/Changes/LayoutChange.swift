// SPDX-License-Identifier: Apache-2.0
//
// What a change of the layout did: the exact differences of the counters, and what it dropped.
//
// The caller applies the counters (M3), and after it has let go of its locks, disposes of the dropped
// records: only then their mappings lose a reference (rule 6 of docs/design.md section 4).

/// Pages by class (Linux `total_vm`, `data_vm`, `exec_vm`, `stack_vm`, `locked_vm`, charged pages).
struct LayoutCounts: Equatable, Sendable {
  /// VMAs (Linux `map_count`).
  var areas = 0
  var totalPages = 0
  var dataPages = 0
  var executablePages = 0
  var stackPages = 0
  /// Pages in VMAs with `.locked`.
  var lockedPages = 0
  /// Pages in VMAs with `.account`.
  var accountedPages = 0

  /// Counts a VMA in (`sign` 1) or out (-1). A reservation does not count. Linux `vm_stat_account`.
  @inline(__always)
  mutating func count(_ flags: VMAFlags, pages: UInt64, sign: Int) {
    if flags.contains(.reservation) { return }
    areas &+= sign
    countPages(flags, pages: pages, sign: sign)
  }

  /// The same without counting the VMA itself.
  @inline(__always)
  mutating func countPages(_ flags: VMAFlags, pages: UInt64, sign: Int) {
    let n = Int(truncatingIfNeeded: pages) &* sign
    totalPages &+= n
    if flags.countsAsExecutable {
      executablePages &+= n
    } else if flags.countsAsStack {
      stackPages &+= n
    } else if flags.countsAsData {
      dataPages &+= n
    }
    if flags.contains(.locked) { lockedPages &+= n }
    if flags.contains(.account) { accountedPages &+= n }
  }

  static func -= (a: inout LayoutCounts, b: LayoutCounts) {
    a.areas -= b.areas
    a.totalPages -= b.totalPages
    a.dataPages -= b.dataPages
    a.executablePages -= b.executablePages
    a.stackPages -= b.stackPages
    a.lockedPages -= b.lockedPages
    a.accountedPages -= b.accountedPages
  }

  /// Only what has a limit: the rest is counted once, when a change ends.
  var limited: LayoutCounts {
    var counts = self
    counts.executablePages = 0
    counts.stackPages = 0
    return counts
  }

  static func += (a: inout LayoutCounts, b: LayoutCounts) {
    a.areas += b.areas
    a.totalPages += b.totalPages
    a.dataPages += b.dataPages
    a.executablePages += b.executablePages
    a.stackPages += b.stackPages
    a.lockedPages += b.lockedPages
    a.accountedPages += b.accountedPages
  }
}

/// The effects of one or several changes by one thread.
struct LayoutChange {
  /// Differences of the counters, new minus old.
  var counts = LayoutCounts()
  /// The part of them that the counters have already. Looked at if `isSettled`.
  private(set) var settled = LayoutCounts()
  private(set) var isSettled = false
  /// Records taken out of the tree, linked by `nextDropped`.
  private(set) var firstDropped: RecordRef?
  /// Whether a special mapping is among them.
  private(set) var dropsSpecial = false
  /// Cells made write-locked for new records, linked by `nextLocked` (policy `.perVMA`): the hold
  /// adopts them. Read the link before `WriteHold.adopt`, which writes it.
  var newCells: VMACellRef?

  @inline(__always)
  init() {}

  /// The counters have so much more of the differences.
  mutating func settle(_ done: LayoutCounts) {
    settled += done
    isSettled = true
  }

  /// Leaves in `counts` what the counters do not have yet.
  @inline(never)
  mutating func leaveOutSettled() {
    counts -= settled
    settled = LayoutCounts()
    isSettled = false
  }

  /// Whether nothing was dropped.
  var isEmpty: Bool { firstDropped == nil && counts == LayoutCounts() }

  @inline(__always)
  mutating func drop(_ record: RecordRef, withCell: Bool) {
    record.pointee.nextDropped = firstDropped
    record.pointee.dropsCell = withCell
    // Before the content without it is published, which releases this: who sees that content, or anything that
    // came after it, does not find the record in a cache. Partner: `LayoutTree.lookUp`.
    record.life.pointee.store(0, ordering: .relaxed)
    firstDropped = record
    counts.count(record.pointee.flags, pages: record.pointee.pageCount, sign: -1)
  }

  /// A dropped record is a special mapping's: what became of it.
  mutating func noteSpecial(_ record: RecordRef, pieces: Int, isRemoved: Bool) {
    record.pointee.pieces = UInt8(pieces)
    record.pointee.isRemoved = isRemoved
    dropsSpecial = true
  }

  /// Calls `body` for every dropped record.
  @inline(__always)
  func forEachDropped(_ body: (RecordRef) -> Void) {
    Self.forEach(firstDropped, body)
  }

  /// Calls `body` for every record of a chain of dropped ones.
  @inline(__always)
  static func forEach(_ first: RecordRef?, _ body: (RecordRef) -> Void) {
    var next = first
    while let record = next {
      next = record.pointee.nextDropped
      body(record)
    }
  }

  /// Lets go of the dropped records and of their references to mappings. Call it when no lock is held
  /// (it takes object latches), under `.perVMA` after the hold has ended (it retires cells).
  ///
  /// - Precondition: the thread is pinned and has been since the change.
  @inline(__always)
  mutating func dispose(_ context: Context) {
    if firstDropped != nil { disposeSlow(context) }
  }

  private mutating func disposeSlow(_ context: Context) {
    forEachDropped { record in
      if let backing = record.pointee.backing { backing.release(context) }
      if let anonymous = record.pointee.anonymous { anonymous.release(context) }
      if record.pointee.dropsCell, let cell = record.pointee.cell {
        context.retire(cell, .vmaCell)
      }
      context.retire(record, .record)
    }
    firstDropped = nil
  }
}
