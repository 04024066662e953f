// SPDX-License-Identifier: Apache-2.0
//
// Dirty pages of a file: marking them, and writing them back.
//
// Guarantee: what was written to a page before a write-back began is in what is written, or the page is dirty afterwards.
//   A page whose write-back fails stays dirty, and the error is noted.
// Mechanism: the mark is a flag of the frame. Who may write to a page sets it first, under the latch of the page table
//   in which the right is given then (write-notify). Who writes back takes the mark away, then the right from every
//   page table, each under its latch, waits for accessors, and then gives the bytes away: a right that is given after
//   its latch was taken comes with a mark that stays.
// Lock order: object's set of mappings, then page tables: the reverse direction, with no space lock.
// Source: Linux mm/page-writeback.c `folio_clear_dirty_for_io`, mm/rmap.c `folio_mkclean`.

import Synchronization
import SystemPackage

extension UnsafeMutablePointer where Pointee == FrameArena {
  /// Marks a page of a file as written to. Under the latch of a page table that maps it, or of the object's pages, or
  /// inside the gate: the page does not leave the object meanwhile.
  @inline(__always)
  func markDirty(_ frame: FrameNumber, _ file: FileStateRef) {
    let flags = pointee.metadata + Int(frame)
    let old = flags.pointee.flags.bitwiseOr(
      FrameMetadata.dirtyFlag, ordering: .acquiringAndReleasing
    )
    .oldValue
    if old & FrameMetadata.dirtyFlag == 0 {
      file.pointee.dirtyPages.add(1, ordering: .relaxed)
    }
  }

  /// Takes the mark away; whether there was one.
  func clearDirty(_ frame: FrameNumber, _ file: FileStateRef) -> Bool {
    let old = (pointee.metadata + Int(frame)).pointee.flags.bitwiseAnd(
      ~FrameMetadata.dirtyFlag, ordering: .acquiringAndReleasing
    ).oldValue
    if old & FrameMetadata.dirtyFlag == 0 { return false }
    file.pointee.dirtyPages.subtract(1, ordering: .relaxed)
    return true
  }

  func isDirty(_ frame: FrameNumber) -> Bool {
    (pointee.metadata + Int(frame)).pointee.flags.load(ordering: .acquiring)
      & FrameMetadata.dirtyFlag != 0
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// Writes back the dirty pages with these indices, those that others are writing included: when it returns the
  /// operating system, or the pager, has had them. May block, so under no lock.
  ///
  /// - Returns: an error of one of them, which is noted too; the others were tried.
  func writeBack(_ range: Range<UInt64>, _ context: Context) -> Errno? {
    let file = pointee.file.unsafelyUnwrapped
    if !file.pointee.tracksDirty { return nil }
    let before = LockMap.enter(.writeBack)
    defer { LockMap.leave(before) }
    file.pointee.gate.enter()
    defer { file.pointee.gate.leave() }
    return writeBackInside(range, file, context)
  }

  private func writeBackInside(
    _ range: Range<UInt64>, _ file: FileStateRef, _ context: Context
  ) -> Errno? {
    var failure: Errno?
    var next = range.lowerBound
    while true {
      let event = file.pointee.gate.events.value
      switch takeDirty(from: next, below: range.upperBound, file) {
      case .none: return failure
      case .busy(let index):
        next = index
        file.pointee.gate.events.wait(since: event)
      case .pages(let first, let count, let frames):
        if let error = write(first, count, frames, file, context) {
          failure = failure ?? error
          file.pointee.errors.note(error)
        }
        next = first + UInt64(count)
      }
    }
  }

  private enum Dirty {
    case none
    /// Another thread writes it.
    case busy(UInt64)
    /// Consecutive pages, marked as being written, with a reference each.
    case pages(first: UInt64, count: Int, PageBatch)
  }

  private func takeDirty(from start: UInt64, below end: UInt64, _ file: FileStateRef) -> Dirty {
    let arena = pointee.arena
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    var frames = PageBatch(repeating: 0)
    var (first, count) = (start, 0)
    var index = start
    while count < frames.count, let found = nextPageLocked(index, below: end) {
      if count > 0 && found != index { break }
      index = found
      let slot = slotLocked(found).unsafelyUnwrapped
      let frame = FrameNumber(truncatingIfNeeded: slot.pointee)
      if slot.pointee & ObjectSlot.writing != 0 {
        if count > 0 { break }
        return .busy(found)
      }
      if slot.pointee & ObjectSlot.loading == 0, arena.isDirty(frame) {
        slot.pointee |= ObjectSlot.writing
        arena.retain(frame)
        if count == 0 { first = found }
        frames[count] = frame
        count += 1
      } else if count > 0 {
        break
      }
      index += 1
    }
    return count == 0 ? .none : .pages(first: first, count: count, frames)
  }

  private func write(
    _ first: UInt64, _ count: Int, _ frames: PageBatch, _ file: FileStateRef, _ context: Context
  ) -> Errno? {
    let arena = pointee.arena
    for i in 0..<count {
      _ = arena.clearDirty(frames[i], file)
      takeWriteRights(first + UInt64(i), frames[i], context)
    }
    // The size changes only while nobody is here.
    let size = file.pointee.size.load(ordering: .acquiring)
    let bytes = Int(min(UInt64(count) << 12, size - min(size, first << 12)))
    var failure: Errno?
    withUnsafeTemporaryAllocation(of: UnsafeMutableRawPointer?.self, capacity: count) { pages in
      for i in 0..<count { pages.initializeElement(at: i, to: arena.pointee.bytes(of: frames[i])) }
      LockOrder.assertNothingHeld("output")
      do throws(Errno) {
        if bytes > 0 {
          try file.pointee.source.takeUnretainedValue().write(first, pages, bytes: bytes)
        }
      } catch {
        failure = error
      }
    }
    pointee.pagesLatch.lock(.pageTable)
    for i in 0..<count {
      slotLocked(first + UInt64(i)).unsafelyUnwrapped.pointee &= ~ObjectSlot.writing
      if failure != nil { arena.markDirty(frames[i], file) }
    }
    pointee.pagesLatch.unlock(.pageTable)
    file.pointee.gate.events.signal()
    for i in 0..<count { arena.release(frames[i], context) }
    return failure
  }

  /// Takes the right to write to a page from all who map it; when it returns nobody can write without a fault.
  private func takeWriteRights(_ index: UInt64, _ frame: FrameNumber, _ context: Context) {
    forEachPlace(of: index) { place, address in
      var drops = FrameDropList(pointee.arena, place.pointee.accessors, context)
      if let leaf = place.pointee.tables.latchLeaf(address, creating: false, context) {
        let now = leaf.latchedEntry(address)
        if now.isPresent, now.frame == frame, now.isWritable, now.isTracked {
          LockMap.observe(.pageTableEntry, .pageTable, .write)
          if let old = leaf.restrict(to: now.rights.subtracting(.write), at: address) {
            drops.note(old, at: address)
          }
        }
        leaf.unlockLeaf()
      }
      drops.shootdown()
      drops.release()
    }
  }

  /// As `forEachMapping`, for those that can be worked on. Under the object's latch.
  func forEachPlace(of index: UInt64, _ body: (SpacePlaceRef, Address) -> Void) {
    pointee.latch.lock(.objectMappings)
    defer { pointee.latch.unlock(.objectMappings) }
    LockMap.observe(.reverseMap, .objectMappings, .read)
    var next = pointee.mappings
    while let mapping = next {
      let page = index &+ mapping.pointee.deltaPages
      if let place = mapping.pointee.place, page < Address.spaceEnd.pageNumber {
        body(place, page << 12)
      }
      next = mapping.pointee.next
    }
  }

  /// Makes durable what was written back.
  ///
  /// - Returns: the error, which is noted too.
  func synchronizeSource() -> Errno? {
    let file = pointee.file.unsafelyUnwrapped
    LockOrder.assertNothingHeld("output")
    do throws(Errno) {
      try file.pointee.source.takeUnretainedValue().synchronize()
      return nil
    } catch {
      file.pointee.errors.note(error)
      return error
    }
  }
}
