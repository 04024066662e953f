// SPDX-License-Identifier: Apache-2.0
//
// Pins: pages that keep their frames whatever becomes of their mappings.
//
// Range: up to 64 pages at a time, for reading: what faults do, page after page. Nothing is held while a page of a file
// is read in, nor while a pin lasts.
// Linux: mm/gup.c `pin_user_pages_remote`, `check_vma_flags`, `unpin_user_pages_dirty_lock`.

import SystemPackage

/// A page that somebody pins (Linux `FOLL_PIN`): its frame is not given to others before `unpin`, also if it is unmapped.
struct PinnedPage {
  /// 0 = the page of zeros.
  var frame: FrameNumber
  /// The file whose page it is, with a reference, of pages that are to be written to; `nil` for other memory.
  var file: ObjectRef?
}

extension AddressSpace {
  /// Pins consecutive pages up to the first that cannot be had (Linux `pin_user_pages`): what is not mapped, lacks the
  /// right itself (unlike a processor, which lets pages be read that may only be written), maps a device, or is an error
  /// of its file. Stacks do not grow.
  ///
  /// Pages that are pinned for writing are the mapping's own, or their object's, and count as written to.
  ///
  /// Takes the space lock for reading over 64 pages at a time.
  ///
  /// - Parameters:
  ///   - start: page aligned; it may lie anywhere.
  ///   - pages: room for as many as are wanted.
  /// - Returns: how many were pinned, and why not the next: `ENOMEM` without memory, `EFAULT` for all else; `nil` if it
  ///   lies behind all that was wanted.
  func pin(
    _ start: Address, _ access: AccessKind, into pages: UnsafeMutableBufferPointer<PinnedPage>
  ) -> (count: Int, refusal: Errno?) {
    let before = LockMap.enter(.pin)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    var done = 0
    while done < pages.count {
      let (first, overflow) = start.addingReportingOverflow(UInt64(done) << 12)
      guard !overflow, first < Address.spaceEnd else { return (done, .badAddress) }
      let count = min(pages.count - done, 64, Int((Address.spaceEnd - first) >> 12))
      var wanted: WantedPage?
      let target = UnsafeMutableBufferPointer(rebasing: pages[done..<done + count])
      let refusal = pinHeld(first, access, target, &done, &wanted, context)
      if let wanted {
        if let reason = provide(wanted, context) {
          return (done, reason == .outOfMemory ? .noMemory : .badAddress)
        }
      } else if let refusal {
        return (done, refusal)
      }
    }
    return (done, nil)
  }

  /// Pins pages under one hold, up to the first that cannot be had or has to be read in.
  ///
  /// - Parameter done: grows with each.
  private func pinHeld(
    _ start: Address, _ access: AccessKind, _ pages: UnsafeMutableBufferPointer<PinnedPage>,
    _ done: inout Int, _ wanted: inout WantedPage?, _ context: Context
  ) -> Errno? {
    let range = AddressRange(start: start, end: start + UInt64(pages.count) << 12)
    let hold = lock.read(range, .pin)
    park.pass(.pin)
    context.pin()
    defer { context.unpin() }
    LockMap.observe(.layout, hold, range)
    LockMap.observe(.vmaFlags, hold, range)
    LockMap.observe(.pageTableEntry, hold, range)
    for i in pages.indices {
      let page = start + UInt64(i) << 12
      guard let record = layout.pointee.lookUp(page, context),
        record.pointee.flags.contains(access == .write ? .write : .read),
        !record.pointee.flags.contains(.device)
      else { return .badAddress }
      while true {
        if let pinned = pinPresent(page, record, access, context) {
          pages.initializeElement(at: i, to: pinned)
          done += 1
          break
        }
        if let failure = bringIn(page: page, access, hold, &wanted, context) { return failure }
        if wanted != nil { return nil }
      }
    }
    return nil
  }

  /// Pins a page that is there with the right that is needed.
  private func pinPresent(
    _ page: Address, _ record: RecordRef, _ access: AccessKind, _ context: Context
  ) -> PinnedPage? {
    guard let leaf = tables.latchLeaf(page, creating: false, context) else { return nil }
    defer { leaf.unlockLeaf() }
    let entry = leaf.latchedEntry(page)
    guard entry.isPresent, access == .write ? entry.isWritable : entry.isReadable else {
      return nil
    }
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    leaf.touch(page, isWrite: access == .write)
    // Under the latch: whoever asks whether the page is pinned has it.
    arena.pin(entry.frame)
    guard access == .write, entry.isTracked, let backing = record.pointee.backing else {
      return PinnedPage(frame: entry.frame)
    }
    backing.pointee.object.retain()
    return PinnedPage(frame: entry.frame, file: backing.pointee.object)
  }

  /// Gives pins up. Under no lock: it is the page that is marked, not a mapping (Linux `unpin_user_pages_dirty_lock`).
  ///
  /// - Parameter dirty: they were written to: pages of files that are still the file's will be written back, also if
  ///   nothing maps them any more.
  func unpin(_ pages: UnsafeMutableBufferPointer<PinnedPage>, dirty: Bool) {
    let before = LockMap.enter(.pin)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    for page in pages {
      if dirty, let file = page.file { file.markDirty(page.frame) }
      arena.unpin(page.frame, context)
      page.file?.release(context)
    }
    settleFiles(context)
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// Marks a page of a file as written to, if the file still has it. The caller has a reference to both.
  func markDirty(_ frame: FrameNumber) {
    guard let file = pointee.file, file.pointee.tracksDirty else { return }
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.objectPages, .pageTable, .write)
    let index = pointee.arena.pointee.metadata[Int(frame)].index
    if findSlotLocked(index) & ObjectSlot.frameMask == UInt64(frame) {
      pointee.arena.markDirty(frame, file)
    }
  }
}

extension UnsafeMutablePointer where Pointee == PageTable {
  /// Marks a present page as accessed, and as written to. Needs the latch.
  fileprivate func touch(_ address: Address, isWrite: Bool) {
    let slot = entry(of: address)
    if isWrite { slot.pointee.bitwiseAnd(~PageTableEntry.lazyBit, ordering: .relaxed) }
    let marks = PageTableEntry.accessedBit | (isWrite ? PageTableEntry.dirtyBit : 0)
    slot.pointee.bitwiseOr(marks, ordering: .relaxed)
  }
}
