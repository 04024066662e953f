// SPDX-License-Identifier: Apache-2.0
//
// The page cache of a file: finding pages, and reading them in.
//
// Guarantee: of threads that need a page at the same time one reads it, under no lock, and all get that page; an error
//   is that thread's, and the next one tries again.
// Mechanism: a page on its way is in the tree with the mark `loading`. Others wait for an event of the gate, and look
//   again. Pages around the one that is needed are read with it.
// Source: Linux mm/filemap.c `filemap_fault`, `do_sync_mmap_readahead`; PG_locked, PG_writeback.

import Synchronization
import SystemPackage

/// A slot of a file's tree: a frame number and marks.
enum ObjectSlot {
  static var frameMask: UInt64 { 0xffff_ffff }
  /// The contents are on their way. Whoever set it takes it away.
  static var loading: UInt64 { 1 << 32 }
  /// The contents are on their way to the file. Whoever set it takes it away.
  static var writing: UInt64 { 1 << 33 }
}

/// Pages that are read or written at a time.
typealias PageBatch = InlineArray<16, FrameNumber>

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// What `filePage` found.
  enum FilePage {
    /// With a reference for the caller.
    case frame(FrameNumber)
    /// Behind the end.
    case none
    /// To be read in, or on its way: see `bringIn`.
    case absent
  }

  /// The page of a file, for a fault. Takes the latch of the pages, so with no page-table latch held.
  @inline(__always)
  func filePage(_ index: UInt64, _ file: FileStateRef) -> FilePage {
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.objectPages, .pageTable, .read)
    // Pages go, and sizes change, only while the gate is closed.
    if file.pointee.gate.isClosed { return .absent }
    if index >= file.pointee.pageCount { return .none }
    let slot = findSlotLocked(index)
    if slot == 0 || slot & ObjectSlot.loading != 0 { return .absent }
    let frame = FrameNumber(truncatingIfNeeded: slot)
    pointee.arena.retain(frame)
    return .frame(frame)
  }

  /// The pages from `first` on that are in memory, with a reference each; 0 = it is not.
  func filePages(_ first: UInt64, count: Int, _ file: FileStateRef) -> PageBatch {
    var found = PageBatch(repeating: 0)
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.objectPages, .pageTable, .read)
    if file.pointee.gate.isClosed { return found }
    let end = file.pointee.pageCount
    for i in 0..<count where first + UInt64(i) < end {
      let slot = findSlotLocked(first + UInt64(i))
      if slot == 0 || slot & ObjectSlot.loading != 0 { continue }
      found[i] = FrameNumber(truncatingIfNeeded: slot)
      pointee.arena.retain(found[i])
    }
    return found
  }

  /// Makes a page present, if it is not behind the end; another look has to follow. May block, so under no lock.
  ///
  /// - Parameter isRandom: no other page is read with it.
  /// - Throws: what the file or the pager said of this page; `ENOMEM` without frames.
  func bringIn(_ index: UInt64, isRandom: Bool, _ context: Context) throws(Errno) {
    let file = pointee.file.unsafelyUnwrapped
    file.pointee.gate.enter()
    defer { file.pointee.gate.leave() }
    try bringInInside(index, isRandom: isRandom, file, context)
  }

  /// The same, by one who is inside the gate.
  func bringInInside(
    _ index: UInt64, isRandom: Bool, _ file: FileStateRef, _ context: Context
  ) throws(Errno) {
    while true {
      let event = file.pointee.gate.events.value
      pointee.pagesLatch.lock(.pageTable)
      let slot = findSlotLocked(index)
      pointee.pagesLatch.unlock(.pageTable)
      if index >= file.pointee.pageCount { return }
      if slot & ObjectSlot.loading != 0 {
        LockOrder.assertNothingHeld("a wait for input")
        file.pointee.gate.events.wait(since: event)
        continue
      }
      if slot != 0 { return }
      // `false`: another thread was first.
      if try load(index, isRandom: isRandom, file, context) { return }
    }
  }

  /// Reads a page, and those around it that are not there.
  private func load(
    _ index: UInt64, isRandom: Bool, _ file: FileStateRef, _ context: Context
  ) throws(Errno) -> Bool {
    let width = isRandom ? 1 : UInt64(file.pointee.readAhead)
    let first = index - index % width
    let end = min(first + width, file.pointee.pageCount)
    guard first < end else { return true }
    var frames = PageBatch(repeating: 0)
    let count = try begin(first..<max(end, index + 1), needing: index, &frames, file, context)
    if count == 0 { return false }
    var failure: Errno?
    var isAlone = true
    var i = 0
    while i < Int(end - first) {
      if frames[i] == 0 {
        i += 1
        continue
      }
      var stop = i
      while stop < Int(end - first), frames[stop] != 0 { stop += 1 }
      let error = fill(first + UInt64(i), frames, i..<stop, file)
      let isNeeded = (first + UInt64(i)..<first + UInt64(stop)).contains(index)
      finish(first, frames, i..<stop, failed: error != nil, file, context)
      if let error, isNeeded { (failure, isAlone) = (error, stop - i == 1) }
      i = stop
    }
    // Perhaps the fault of a page beside it. Not before all that was begun has ended: others wait for it.
    if failure != nil && !isAlone { return try load(index, isRandom: true, file, context) }
    if let failure { throw failure }
    return true
  }

  /// Puts frames into the tree for the pages of a range that are not there; how many. 0: the one that is needed is.
  private func begin(
    _ range: Range<UInt64>, needing index: UInt64, _ frames: inout PageBatch,
    _ file: FileStateRef, _ context: Context
  ) throws(Errno) -> Int {
    let arena = pointee.arena
    let needsZeros = pointee.file.unsafelyUnwrapped.pointee.fillsZeros
    guard context.reserve(.objectIndexNode, count: ObjectIndexNode.nodesPerInsertion) else {
      throw .noMemory
    }
    guard let own = arena.allocate(zeroed: needsZeros, context) else { throw .noMemory }
    let place = Int(index - range.lowerBound)
    frames[place] = own
    // Frames that are used for others only if there are any left.
    for i in 0..<range.count where i != place && !hasSlot(range.lowerBound + UInt64(i)) {
      guard let frame = arena.allocate(zeroed: needsZeros, context) else { break }
      frames[i] = frame
    }
    var count = 0
    pointee.pagesLatch.lock(.pageTable)
    LockMap.observe(.objectPages, .pageTable, .write)
    let isThere = findSlotLocked(index) != 0
    var unused = PageBatch(repeating: 0)
    for i in 0..<range.count where frames[i] != 0 {
      let page = range.lowerBound + UInt64(i)
      if isThere || findSlotLocked(page) != 0 {
        (unused[i], frames[i]) = (frames[i], 0)
        continue
      }
      arena.setOwner(of: frames[i], self, index: page)
      // Pages of a group are in one node, so what is reserved is enough for all.
      insertLocked(page, frames[i], context)
      slotLocked(page).unsafelyUnwrapped.pointee |= ObjectSlot.loading
      count += 1
    }
    pointee.pagesLatch.unlock(.pageTable)
    for i in 0..<range.count where unused[i] != 0 { arena.release(unused[i], context) }
    return count
  }

  private func hasSlot(_ index: UInt64) -> Bool {
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    return findSlotLocked(index) != 0
  }

  private func fill(
    _ page: UInt64, _ frames: PageBatch, _ part: Range<Int>, _ file: FileStateRef
  ) -> Errno? {
    let arena = pointee.arena
    return withUnsafeTemporaryAllocation(of: UnsafeMutableRawPointer?.self, capacity: part.count) {
      (pages) -> Errno? in
      for i in part {
        pages.initializeElement(at: i - part.lowerBound, to: arena.pointee.bytes(of: frames[i]))
      }
      LockOrder.assertNothingHeld("input")
      do throws(Errno) {
        try file.pointee.source.takeUnretainedValue().fill(page, pages)
        return nil
      } catch {
        return error
      }
    }
  }

  /// Pages have come, or will not.
  private func finish(
    _ first: UInt64, _ frames: PageBatch, _ part: Range<Int>, failed: Bool, _ file: FileStateRef,
    _ context: Context
  ) {
    pointee.pagesLatch.lock(.pageTable)
    for i in part {
      if failed {
        _ = removeLocked(first + UInt64(i))
      } else {
        slotLocked(first + UInt64(i)).unsafelyUnwrapped.pointee &= ~ObjectSlot.loading
      }
    }
    pointee.pagesLatch.unlock(.pageTable)
    file.pointee.gate.events.signal()
    if failed {
      for i in part { pointee.arena.release(frames[i], context) }
    }
  }

  // MARK: slots

  /// The slot of a page with its marks, 0 = none. Needs `pagesLatch`.
  func findSlotLocked(_ index: UInt64) -> UInt64 { slotLocked(index)?.pointee ?? 0 }

  /// Where the slot of a page is; `nil` where no node is. Needs `pagesLatch`.
  func slotLocked(_ index: UInt64) -> UnsafeMutablePointer<UInt64>? {
    var height = pointee.pagesHeight
    guard height > 0, height == ObjectIndexNode.maxHeight || index >> (6 * UInt64(height)) == 0,
      var node = pointee.pagesRoot
    else { return nil }
    while height > 1 {
      guard
        let child = ObjectIndexRef(bitPattern: UInt(node.slot(of: index, height: height).pointee))
      else { return nil }
      node = child
      height -= 1
    }
    return node.slot(of: index, height: 1)
  }

  /// Takes a page out; its frame, with the reference that the tree had. Nodes stay. Needs `pagesLatch`.
  func removeLocked(_ index: UInt64) -> FrameNumber {
    guard let slot = slotLocked(index), slot.pointee != 0 else { return 0 }
    let frame = FrameNumber(truncatingIfNeeded: slot.pointee)
    slot.pointee = 0
    pointee.pageCount.subtract(1, ordering: .relaxed)
    return frame
  }

  /// The first page from `index` on that has a slot, below `end`; `nil` = none. Needs `pagesLatch`.
  func nextPageLocked(_ index: UInt64, below end: UInt64) -> UInt64? {
    var index = index
    while index < end {
      var height = pointee.pagesHeight
      guard height > 0, height == ObjectIndexNode.maxHeight || index >> (6 * UInt64(height)) == 0,
        var node = pointee.pagesRoot
      else { return nil }
      // Down as far as there are nodes; then over what is empty there.
      while true {
        let value = node.slot(of: index, height: height).pointee
        if value == 0 { break }
        if height == 1 { return index }
        node = ObjectIndexRef(bitPattern: UInt(value)).unsafelyUnwrapped
        height -= 1
      }
      let step = (1 as UInt64) << (6 * UInt64(height - 1))
      let (next, overflow) = (index & ~(step - 1)).addingReportingOverflow(step)
      if overflow { return nil }
      index = next
    }
    return nil
  }
}
