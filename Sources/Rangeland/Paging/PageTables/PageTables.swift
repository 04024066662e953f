// SPDX-License-Identifier: Apache-2.0
//
// The page tables of one space: four levels of 512 entries.
//
// Guarantee: an entry that was installed under the latch of its leaf stays until it is extracted; a
//   table is freed only when it is empty and unlinked, and never under a reader.
// Mechanism: readers walk without locks inside an epoch section. Creating and freeing a table happens
//   under the parent's latch; a freed table is marked stray, so whoever latches it afterwards walks
//   again. The leaf that a thread has emptied last stays (PageTables+Ranges.swift).
// Cost: a walk is four loads; changing an entry one latch and one exchange.
// Source: Linux mm/pgtable-generic.c and Documentation/mm/split_page_table_lock.rst; the stray mark is
//   from Asterinas, ostd/src/mm/page_table.
//
// The seam of the live unit: operations say install, replace, extract, grant, protect and zap.
// Unranked latches: a child table's latch inside its parent's (parent first): one rank cannot say that.

import RangeLocks
import Synchronization

/// A handle: one pointer. The space owns the tables.
struct PageTables {
  /// Covers the whole space; lives as long as the tables.
  let root: PageTableRef

  /// Makes empty tables; `nil` without memory.
  static func make(_ context: Context) -> PageTables? {
    guard let node = context.allocate(.pageTable) else { return nil }
    let root = node.bindMemory(to: PageTable.self, capacity: 1)
    root.initialize(to: PageTable(level: 3, base: 0, parent: nil))
    return PageTables(root: root)
  }

  /// Frees all tables and releases the frames that they still map. Nobody uses the space any more.
  func destroy(_ arena: UnsafeMutablePointer<FrameArena>, _ context: Context) {
    destroy(root, arena, context)
  }

  private func destroy(
    _ table: PageTableRef, _ arena: UnsafeMutablePointer<FrameArena>, _ context: Context
  ) {
    for i in 0..<PageTable.entryCount {
      let bits = table.entry(i).pointee.load(ordering: .acquiring)
      if bits == 0 { continue }
      if table.pointee.level > 0 {
        destroy(table.child(i)!, arena, context)
      } else {
        arena.release(PageTableEntry(bits: bits).frame, context)
      }
      table.entry(i).pointee.store(0, ordering: .relaxed)
    }
    table.deinitialize(count: 1)
    context.recycle(table, .pageTable)
  }

  /// The leaf that covers `address`, found without locks. Needs a pinned context; the leaf may be stray.
  @inline(__always)
  func leaf(_ address: Address) -> PageTableRef? {
    guard let second = root.child(PageTableRef.index(address, 3)),
      let first = second.child(PageTableRef.index(address, 2))
    else { return nil }
    return first.child(PageTableRef.index(address, 1))
  }

  /// The entry of `address` at some instant of the call. Takes no lock.
  @inline(__always)
  func lookup(_ address: Address, _ context: Context) -> PageTableEntry {
    context.pin()
    defer { context.unpin() }
    guard let leaf = leaf(address) else { return .empty }
    // Acquires the page that `install` publishes.
    return PageTableEntry(bits: leaf.entry(of: address).pointee.load(ordering: .acquiring))
  }

  /// Latches the leaf that covers `address`. The caller ends with `leaf.unlockLeaf()`.
  ///
  /// - Parameter creating: makes missing tables. `nil` then means: no memory, and nothing has changed.
  ///   Otherwise `nil` means: nothing is mapped. A table that stays empty is freed by the next zap.
  /// - Parameter seen: the leaf that covered `address` a moment ago, if the caller has looked and is pinned since.
  @inline(__always)
  func latchLeaf(
    _ address: Address, creating: Bool, seen: PageTableRef? = nil, _ context: Context
  ) -> PageTableRef? {
    context.pin()
    defer { context.unpin() }
    var seen = seen
    while true {
      guard let leaf = seen ?? leaf(address) ?? (creating ? descend(address, context) : nil)
      else { return nil }
      leaf.pointee.latch.lock(.pageTable)
      // Written under this latch: a table that is not stray now stays linked until we unlock.
      if leaf.pointee.stray.load(ordering: .relaxed) == 0 { return leaf }
      leaf.unlockLeaf()
      seen = nil
    }
  }

  /// Walks to the leaf of `address` and makes what is missing; `nil` without memory. Needs a pin.
  @inline(never)
  private func descend(_ address: Address, _ context: Context) -> PageTableRef? {
    while true {
      var table = root
      var isStray = false
      while table.pointee.level > 0, !isStray {
        let i = PageTableRef.index(address, table.pointee.level)
        if let child = table.child(i) {
          table = child
          continue
        }
        guard let node = context.allocate(.pageTable) else {
          // What was made on the way would be found by no zap.
          freeIfEmpty(table, context)
          return nil
        }
        let child = node.bindMemory(to: PageTable.self, capacity: 1)
        let level = table.pointee.level - 1
        let covers = PageTable.entryShift(level) + 9
        child.initialize(
          to: PageTable(level: level, base: (address >> covers) << covers, parent: table))
        #if RANGELAND_CHECKS
          for e in 0..<PageTable.entryCount {
            precondition(
              child.entry(e).pointee.load(ordering: .relaxed) == 0,
              "PageTables: a fresh table is not empty")
          }
        #endif
        table.pointee.latch.lock(.pageTable)
        isStray = table.pointee.stray.load(ordering: .relaxed) != 0
        if !isStray, table.child(i) == nil {
          LockMap.observe(.pageTableShape, .pageTable, .write)
          // Releases the header to the acquiring load in `child`; ordered for `latchLeafInOrder`.
          table.entry(i).pointee.store(
            UInt64(UInt(bitPattern: child)), ordering: .sequentiallyConsistent)
          table.addCount(1)
          table.pointee.latch.unlock(.pageTable)
          table = child
        } else {
          table.pointee.latch.unlock(.pageTable)
          child.deinitialize(count: 1)
          context.recycle(node, .pageTable)
        }
      }
      if !isStray { return table }
    }
  }

  /// Unlinks and frees `table` if it is still empty, and the tables above it that it leaves empty.
  /// Needs a pinned context and no latch.
  @inline(never)
  func freeIfEmpty(_ emptied: PageTableRef, _ context: Context) {
    var table = emptied
    while let parent = table.pointee.parent {
      let slot = parent.entry(PageTableRef.index(table.pointee.base, parent.pointee.level))
      parent.pointee.latch.lock(.pageTable)
      // Pinned, so an equal address is the same table. A stray parent has no children.
      guard slot.pointee.load(ordering: .relaxed) == UInt64(UInt(bitPattern: table)) else {
        parent.pointee.latch.unlock(.pageTable)
        return
      }
      // Parent before child, the one nesting of these latches: hence unranked.
      table.pointee.latch.lock()
      guard table.inUse == 0 else {
        table.pointee.latch.unlock()
        parent.pointee.latch.unlock(.pageTable)
        return
      }
      LockMap.observe(.pageTableShape, .pageTable, .write)
      table.pointee.stray.store(1, ordering: .relaxed)
      table.pointee.latch.unlock()
      // Readers that come later see nothing here; those inside are pinned.
      slot.pointee.store(0, ordering: .relaxed)
      parent.addCount(-1)
      let isParentEmpty = parent.inUse == 0
      parent.pointee.latch.unlock(.pageTable)
      context.retire(table, .pageTable)
      if !isParentEmpty { return }
      table = parent
    }
  }

  /// Tables that exist, the root included. Exact while nobody changes them: for tests and reports.
  func tableCount(_ context: Context) -> Int {
    func count(_ table: PageTableRef) -> Int {
      guard table.pointee.level > 0 else { return 1 }
      var sum = 1
      for i in 0..<PageTable.entryCount {
        if let child = table.child(i) { sum += count(child) }
      }
      return sum
    }
    context.pin()
    defer { context.unpin() }
    return count(root)
  }
}
