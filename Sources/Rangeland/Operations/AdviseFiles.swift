// SPDX-License-Identifier: Apache-2.0
//
// Advice that reads or changes files.
//
// Range: [start, end), for reading, from one mapping to the next; nothing is held while a file is read or gets a hole.
// Linux: mm/madvise.c `madvise_willneed`, `madvise_remove`, both of which let go of mmap_lock.

import SystemPackage

extension AddressSpace {
  /// `MADV_WILLNEED` and `MADV_REMOVE`.
  func adviseObjects(_ advice: Advice, _ range: AddressRange) throws(Errno) {
    let before = LockMap.enter(.advise)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    defer { settleFiles(context) }
    var position = range.start
    var isComplete = true
    while position < range.end {
      guard let found = try nextObject(advice, from: &position, range, &isComplete, context) else {
        break
      }
      defer { found.object.release(context) }
      if advice == .remove {
        try found.object.punchHole(
          found.pages.lowerBound << 12..<found.pages.upperBound << 12, context)
      } else {
        readAhead(found.object, found.pages, context)
      }
    }
    if !isComplete { throw .noMemory }
  }

  private struct FoundObject {
    /// With a reference.
    var object: ObjectRef
    var pages: Range<UInt64>
  }

  /// Goes on to the next mapping that the advice does something to, under the lock; `nil` = there is no more.
  private func nextObject(
    _ advice: Advice, from position: inout Address, _ range: AddressRange,
    _ isComplete: inout Bool, _ context: Context
  ) throws(Errno) -> FoundObject? {
    let hold = lock.read(AddressRange(start: position, end: range.end), .advise)
    context.pin()
    defer { context.unpin() }
    park.pass(.advise)
    LockMap.observe(.layout, hold, hold.range)
    while position < range.end {
      guard let record = layout.pointee.findNext(position), record.pointee.start < range.end else {
        throw .noMemory
      }
      if record.pointee.start > position { isComplete = false }
      let piece = AddressRange(
        start: max(position, record.pointee.start), end: min(range.end, record.pointee.end))
      LockMap.observe(.vmaFlags, hold, piece)
      if record.pointee.isSealed(against: advice) { throw .notPermitted }
      let object = record.pointee.backing?.pointee.object
      if advice == .remove { try allowRemoval(record) }
      position = piece.end
      if let object, object.pointee.file != nil {
        object.retain()
        let first = record.pointee.backing.unsafelyUnwrapped.pageIndex(piece.start)
        return FoundObject(object: object, pages: first..<first + piece.lengthInPages)
      }
      if advice == .remove, let backing = record.pointee.backing {
        changePages(piece, hold, context) { punchHole(piece, backing, into: &$0, context) }
      }
    }
    return nil
  }

  private func allowRemoval(_ record: RecordRef) throws(Errno) {
    let flags = record.pointee.flags
    if flags.contains(.locked) { throw .invalidArgument }
    // There is an object for shared memory only; that of a private file mapping is not this space's.
    guard let backing = record.pointee.backing, !flags.contains(.special) else {
      throw .invalidArgument
    }
    // Linux `vma_is_shared_maywrite`.
    guard flags.isSuperset(of: [.shared, .mayWrite]) else { throw .permissionDenied }
    let object = backing.pointee.object
    if object.pointee.file == nil && object.pointee.kind != .sharedAnonymous { throw .notSupported }
  }

  /// Reads pages in that are not there, as far as they can be had.
  private func readAhead(_ object: ObjectRef, _ pages: Range<UInt64>, _ context: Context) {
    let file = object.pointee.file.unsafelyUnwrapped
    if !file.pointee.tracksDirty { return }
    let end = min(pages.upperBound, file.pointee.pageCount)
    var index = pages.lowerBound
    while index < end {
      // Advice: what cannot be read is found out by whoever needs it.
      do throws(Errno) { try object.bringIn(index, isRandom: false, context) } catch { return }
      index += 1
    }
  }
}
