// SPDX-License-Identifier: Apache-2.0
//
// Faults on files.
//
// Range: the page, for reading; pages around it only as far as they can be had at once. Nothing is held while a page is
// read in: the fault lets go, waits, and begins again.
// Linux: mm/memory.c `do_read_fault`, `do_fault_around`, `do_shared_fault`, `fault_dirty_shared_page`; mm/filemap.c
// `filemap_fault`, `filemap_map_pages`.

import SystemPackage

extension AddressSpace {
  /// Maps the page of a file that is in memory; otherwise says which one is needed.
  ///
  /// - Parameter seen: the leaf of the page tables that covers the page, if the caller has looked.
  @inline(never)
  func mapFilePage(
    _ file: FileStateRef, _ backing: MappingRef, _ page: Address, _ record: RecordRef,
    isWrite: Bool, seen: PageTableRef?, _ context: Context
  ) -> Outcome {
    let object = backing.pointee.object
    let index = backing.pageIndex(page)
    let frame: FrameNumber
    switch object.filePage(index, file) {
    case .frame(let found): frame = found
    case .none: return .refused(.noPage)
    case .absent:
      // It outlives the hold.
      object.retain()
      return .needsPage(
        object, index, isRandom: record.pointee.flags.contains(.randomAccess))
    }
    let isTracked = file.pointee.tracksDirty
    var rights = record.pointee.flags.pageRights
    if !isWrite && (isTracked || !record.pointee.flags.contains(.shared)) { rights.remove(.write) }
    if !record.pointee.flags.contains(.shared) { rights.remove(.write) }
    var entry = PageTableEntry(frame: frame, rights: rights, kind: file.pointee.pageKind)
    if isTracked { entry.bits |= PageTableEntry.trackedBit }
    guard let charge = counters.admitResident(1, context) else {
      arena.release(frame, context)
      return .overLimit
    }
    guard let leaf = tables.latchLeaf(page, creating: true, seen: seen, context) else {
      counters.settleResident(charge, 0, context)
      arena.release(frame, context)
      return .refused(.outOfMemory)
    }
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    // Before the right is given: see MemoryObject+WriteBack.swift.
    if isTracked && rights.contains(.write) { arena.markDirty(frame, file) }
    switch installObjectPage(entry, charge, page, leaf, record, context) {
    case .installed: return isWrite ? .done : .doneAround
    case .present: return .done
    case .guarded: return .refused(.notMapped)
    }
  }

  /// Reads in what a fault needs, under no lock. Lets go of the object.
  ///
  /// - Returns: why the access is refused; `nil` = the fault may be made again.
  @inline(never)
  func bringIn(
    _ object: ObjectRef, _ index: UInt64, isRandom: Bool, _ context: Context
  ) -> AccessFault.Reason? {
    defer {
      object.release(context)
      settleFiles(context)
    }
    do throws(Errno) {
      try object.bringIn(index, isRandom: isRandom, context)
      return nil
    } catch {
      if error != .noMemory { return .noPage }
      return makeRoom(context) ? nil : .outOfMemory
    }
  }

  /// Ends what the operation has let go of last, if there is anything: pages of files are written back. Under no lock.
  @inline(__always)
  func settleFiles(_ context: Context) {
    // A pointer of the space's own: what it belongs to would be counted.
    if unusedFiles.pointee.load(ordering: .relaxed) { settleFilesSlow(context) }
  }

  @inline(never)
  private func settleFilesSlow(_ context: Context) { memory.files.settle(context) }

  /// Maps pages near one that was just read, if they are in memory and nobody is at work there.
  @inline(never)
  func mapAround(_ address: Address, _ context: Context) {
    let start = address & ~(FaultAround.bytes - 1)
    let end = min(start + FaultAround.bytes, Address.spaceEnd)
    guard let hold = lock.tryRead(AddressRange(start: start, end: end), .fault) else { return }
    context.pin()
    defer { context.unpin() }
    LockMap.observe(.layout, hold, hold.range)
    guard let record = layout.pointee.find(address), let backing = record.pointee.backing,
      let file = backing.pointee.object.pointee.file, record.pointee.flags.allows(.read),
      !record.pointee.flags.contains(.randomAccess)
    else { return }
    let from = max(start, record.pointee.start)
    let count = Int((min(end, record.pointee.end) - from) >> 12)
    let frames = backing.pointee.object.filePages(backing.pageIndex(from), count: count, file)
    let charge = counters.admitResident(
      counters.countsResident ? Int64((0..<count).count { frames[$0] != 0 }) : 0, context)
    guard let charge, let leaf = tables.latchLeaf(from, creating: false, context) else {
      if let charge { counters.settleResident(charge, 0, context) }
      for i in 0..<count where frames[i] != 0 { arena.release(frames[i], context) }
      return
    }
    LockMap.observe(.pageTableEntry, hold, hold.range)
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    let isTracked = file.pointee.tracksDirty
    var rights = record.pointee.flags.pageRights
    if isTracked || !record.pointee.flags.contains(.shared) { rights.remove(.write) }
    var unused = PageBatch(repeating: 0)
    var installed: Int64 = 0
    for i in 0..<count where frames[i] != 0 {
      var entry = PageTableEntry(frame: frames[i], rights: rights, kind: file.pointee.pageKind)
      if isTracked { entry.bits |= PageTableEntry.trackedBit }
      if leaf.install(entry, at: from + UInt64(i) << 12) {
        installed += 1
      } else {
        unused[i] = frames[i]
      }
    }
    leaf.unlockLeaf()
    counters.settleResident(charge, installed, context)
    for i in 0..<count where unused[i] != 0 { arena.release(unused[i], context) }
    if installed == 0 { return }
    counters.add(
      file.pointee.pageKind == .file ? .rssFile : .rssSharedMemory, installed, context)
    LockMap.observe(.residency, .credit, .write)
  }
}

enum FaultAround {
  /// Linux `fault_around_bytes`.
  static var bytes: UInt64 { 16 * Address.pageSize }
}
