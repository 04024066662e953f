// SPDX-License-Identifier: Apache-2.0
//
// The engine of every change: latch, decide, build, publish.
//
// Guarantee: on failure nothing has changed. For lock-free readers each leaf changes in one instant.
// Mechanism: memory is reserved first, then the leaves are latched and the caller's closure decides on
//   what it reads there; if what it decides reaches beyond the latched leaves or needs more memory, all
//   is let go and tried again with more.
// Cost: one latch, one content block and the new records, as a rule.

import Synchronization

extension LayoutTree {
  /// Runs one change. `decide` sees the latched leaves, plans the change and returns whether there is one; it
  /// may run several times and must not have effects of its own. `confirm` runs once, when nothing can fail any
  /// more, and may plan anew.
  ///
  /// - Returns: whether the change was made; `nil` = no memory, and nothing has changed.
  /// - Precondition: pinned, no layout latch is held.
  @inline(__always)
  borrowing func splice(
    _ start: Address, _ end: Address, _ context: Context, _ change: inout LayoutChange,
    _ decide: (LeafSection, SpliceRef) -> Bool,
    _ confirm: (SpliceRef) -> Void = { _ in }
  ) -> Bool? {
    var low = start
    var high = end
    var budget = SpliceBudget()
    let splice = thread(context).splice
    while true {
      guard budget.reserve(context, cells: makesCells) else { return nil }
      let section = latch(low, high)
      guard decide(section, splice) else {
        section.unlock()
        return false
      }
      if splice.pointee.extentStart < section.low || splice.pointee.extentEnd > section.high
        || isBeyond(budget, section, splice)
      {
        low = min(low, splice.pointee.extentStart)
        high = max(high, splice.pointee.extentEnd)
        budget.leaves = max(budget.leaves, section.count)
        if mayDivide(section, splice) { budget.nodes = nodesPerReplacement }
        section.unlock()
        continue
      }
      if section.leaf(for: splice.pointee.start).isSpan
        || section.leaf(for: splice.pointee.end &- 1).isSpan
      {
        // A border may come to stand inside: give the cells leaves of their own first.
        if !splice.pointee.keepsCell {
          section.unlock()
          guard carve(splice.pointee.start, context), carve(splice.pointee.end &- 1, context) else {
            return nil
          }
          continue
        }
      }
      confirm(splice)
      LockMap.observe(.layout, .layoutLeaf, .write)
      apply(splice, section, context, &change)
      section.unlock()
      return true
    }
  }

  @inline(__always)
  private borrowing func isBeyond(
    _ budget: SpliceBudget, _ section: LeafSection, _ splice: SpliceRef
  ) -> Bool {
    if section.count > budget.leaves { return true }
    return mayDivide(section, splice) && budget.nodes < nodesPerReplacement
  }

  /// Whether a leaf will be too long.
  @inline(__always)
  private borrowing func mayDivide(_ section: LeafSection, _ splice: SpliceRef) -> Bool {
    var leaf = section.first
    for i in 0..<section.count {
      // A change adds at most two entries to a leaf.
      if leaf.content.pointee.count > LeafContent.capacity &- 2, isTooLong(leaf, splice) {
        return true
      }
      if i &+ 1 < section.count { leaf = leaf.pointee.nextLatched.unsafelyUnwrapped }
    }
    return false
  }

  @inline(never)
  private borrowing func isTooLong(_ leaf: LeafRef, _ splice: SpliceRef) -> Bool {
    let content = leaf.content
    var count = content.pointee.count
    if splice.pointee.mayBecomeReservation && count == LeafContent.capacity { return true }
    for i in 0..<splice.pointee.count {
      let draft = splice.draft(i)
      if draft.pointee.start < leaf.pointee.high && draft.pointee.end > leaf.pointee.low {
        count += 1
      }
    }
    for i in 0..<content.pointee.count where splice.drops(content.records[i]) { count -= 1 }
    return count > LeafContent.capacity
  }

  /// Makes the records and publishes the contents. Does not fail.
  @inline(__always)
  private borrowing func apply(
    _ splice: SpliceRef, _ section: LeafSection, _ context: Context, _ change: inout LayoutChange
  ) {
    let count = splice.pointee.count
    let a = count > 0 ? makeRecord(splice.draft(0), context, &change) : nil
    let b = count > 1 ? makeRecord(splice.draft(1), context, &change) : nil
    let c = count > 2 ? makeRecord(splice.draft(2), context, &change) : nil
    if section.count == 1 {
      rebuild(section.first, splice, a, b, c, context, &change)
      publish(section.first, context)
      return
    }
    var leaf = section.first
    for i in 0..<section.count {
      rebuild(leaf, splice, a, b, c, context, &change)
      if i &+ 1 < section.count { leaf = leaf.pointee.nextLatched.unsafelyUnwrapped }
    }
    leaf = section.first
    for i in 0..<section.count {
      publish(leaf, context)
      if i &+ 1 < section.count { leaf = leaf.pointee.nextLatched.unsafelyUnwrapped }
    }
  }

  @inline(__always)
  private borrowing func makeRecord(
    _ draft: UnsafeMutablePointer<RecordDraft>, _ context: Context, _ change: inout LayoutChange
  ) -> RecordRef {
    let record = context.allocate(.record).unsafelyUnwrapped
      .assumingMemoryBound(to: VMARecord.self)
    let isReservation = draft.pointee.flags.contains(.reservation)
    var cell: VMACellRef?
    if makesCells && !isReservation { cell = draft.pointee.cell ?? makeCell(context, &change) }
    draft.pointee.backing?.retain()
    draft.pointee.anonymous?.retain()
    let generation = Self.nextGeneration(context)
    record.initialize(
      to: VMARecord(
        start: draft.pointee.start, end: draft.pointee.end, flags: draft.pointee.flags,
        dropsCell: false,
        pageOffset: draft.pointee.pageOffset, backing: draft.pointee.backing,
        anonymous: draft.pointee.anonymous,
        cell: cell, generation: generation, nextDropped: nil))
    // Released with the content that publishes the record.
    record.life.pointee.store(generation, ordering: .relaxed)
    change.counts.count(
      draft.pointee.flags, pages: (draft.pointee.end &- draft.pointee.start) >> 12, sign: 1)
    return record
  }

  @inline(never)
  private borrowing func makeCell(
    _ context: Context, _ change: inout LayoutChange
  ) -> VMACellRef {
    // Born write-locked: readers of the new record stay out until the writer's hold ends.
    let cell = context.allocate(.vmaCell).unsafelyUnwrapped
      .assumingMemoryBound(to: VMALockCell.self)
    cell.initialize(to: VMALockCell(writeLocked: true))
    cell.pointee.nextLocked = change.newCells
    change.newCells = cell
    return cell
  }

  /// A number that no other record in this physical memory has: the thread's index and its count.
  @inline(__always)
  static func nextGeneration(_ context: Context) -> UInt64 {
    context.pointee.generations &+= 1
    return generation(context)
  }

  /// Of the last record that the calling thread has made.
  @inline(__always)
  static func generation(_ context: Context) -> UInt64 {
    UInt64(context.pointee.index) << 48 | context.pointee.generations
  }

  /// Writes the content of a leaf after the change into its pending block; a leaf that the change does
  /// not touch gets none.
  @inline(__always)
  private borrowing func rebuild(
    _ leaf: LeafRef, _ splice: SpliceRef, _ a: RecordRef?, _ b: RecordRef?, _ c: RecordRef?,
    _ context: Context, _ change: inout LayoutChange
  ) {
    let low = leaf.pointee.low
    let high = leaf.pointee.high
    leaf.pointee.pending = nil
    if high <= splice.pointee.extentStart || low >= splice.pointee.extentEnd { return }
    let old = leaf.content
    let new = Self.makeContent(context)
    let count = old.pointee.count
    var i = 0
    // Up to the first record at or above the new ones.
    let firstNew = a?.pointee.start ?? .max
    while i < count, old.starts[i] < firstNew {
      keepOrDrop(old.records[i], low, splice, new, &change)
      i &+= 1
    }
    if let a {
      if isIn(a, low, high) { new.append(a) }
      if let b {
        // A reservation may stand between two new records when the window is cleared.
        while i < count, old.starts[i] < b.pointee.start {
          keepOrDrop(old.records[i], low, splice, new, &change)
          i &+= 1
        }
        if isIn(b, low, high) { new.append(b) }
        if let c {
          while i < count, old.starts[i] < c.pointee.start {
            keepOrDrop(old.records[i], low, splice, new, &change)
            i &+= 1
          }
          if isIn(c, low, high) { new.append(c) }
        }
      }
    }
    while i < count {
      keepOrDrop(old.records[i], low, splice, new, &change)
      i &+= 1
    }
    new.measureGaps(low, high)
    leaf.pointee.pending = new
  }

  @inline(__always)
  private borrowing func isIn(_ record: RecordRef, _ low: Address, _ high: Address) -> Bool {
    record.pointee.start < high && record.pointee.end > low
  }

  @inline(__always)
  private borrowing func keepOrDrop(
    _ record: RecordRef, _ low: Address, _ splice: SpliceRef, _ new: ContentRef,
    _ change: inout LayoutChange
  ) {
    if splice.drops(record) {
      // A record stands in every leaf that it overlaps: it is dropped where it begins.
      if record.pointee.start >= low {
        change.drop(record, withCell: !splice.pointee.keepsCell)
        if record.pointee.flags.contains(.special) { noteSpecial(record, splice, &change) }
      }
    } else {
      new.append(record)
    }
  }

  /// Counts the pieces that a special mapping is cut into. Linux splits first, which opens the new piece, and
  /// then closes what it removes; a change of attributes only splits.
  @inline(never)
  private borrowing func noteSpecial(
    _ record: RecordRef, _ splice: SpliceRef, _ change: inout LayoutChange
  ) {
    var pieces = 0
    var staysInWindow = false
    for i in 0..<splice.pointee.count {
      let draft = splice.draft(i)
      guard draft.pointee.backing == record.pointee.backing,
        draft.pointee.start < record.pointee.end, draft.pointee.end > record.pointee.start
      else { continue }
      pieces += 1
      if draft.pointee.start < splice.pointee.end && draft.pointee.end > splice.pointee.start {
        staysInWindow = true
      }
    }
    change.noteSpecial(
      record, pieces: staysInWindow ? pieces - 1 : pieces, isRemoved: !staysInWindow)
  }

  /// Publishes the pending content of a leaf, or divides the leaf.
  @inline(__always)
  private borrowing func publish(_ leaf: LeafRef, _ context: Context) {
    guard let new = leaf.pointee.pending else { return }
    if new.pointee.count > LeafContent.capacity {
      divide(leaf, context)
      return
    }
    let old = leaf.content
    leaf.pointee.pending = nil
    if new.pointee.measure > old.pointee.measure {
      // Ordered before the reads of the hints. Partner: `lower`.
      leaf.pointee.content.store(UInt(bitPattern: new), ordering: .sequentiallyConsistent)
      raise(leaf.pointee.low, to: new.pointee.measure)
    } else {
      // Releases the block to the readers' acquiring loads.
      leaf.pointee.content.store(UInt(bitPattern: new), ordering: .releasing)
    }
    context.retire(old, .leafContent)
  }
}
