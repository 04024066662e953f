// SPDX-License-Identifier: Apache-2.0
//
// A page fault: makes an access possible, or says why it is refused.
//
// Range: the page, for reading. Under `.perVMA` the word of the VMA is tried first.
// Linux: mm/memory.c `handle_mm_fault`, `do_anonymous_page`, `do_wp_page`, `do_fault`;
// arch/x86/mm/fault.c `do_user_addr_fault`, `access_error`.

import RangeLocks
import SystemPackage

extension AddressSpace {
  /// Does what the processor's fault would do: checks the access against the mapping and makes the page
  /// present with the rights it needs. Nothing happens when it is already.
  ///
  /// Takes the space lock for reading over the page; under `.perVMA` the VMA's lock word instead, but
  /// for the first anonymous fault of a VMA. Below a stack (`MapOptions.growsDown`) it takes the lock for writing
  /// over the pages that the stack grows by and 256 pages below them.
  ///
  /// - Throws: `AccessFault` with Linux's signal code and address.
  public func fault(at address: Address, _ access: AccessKind) throws(AccessFault) {
    try fault(at: address, access, for: nil)
  }

  /// The same, on the way of an access.
  ///
  /// - Parameter accessor: the calling thread's, whose access missed. A page that is made for it is in its
  ///   translation cache afterwards.
  func fault(
    at address: Address, _ access: AccessKind, for accessor: AccessorRef?
  ) throws(AccessFault) {
    let before = LockMap.enter(.fault)
    defer { LockMap.leave(before) }
    try checkCanonical(address, access)
    let context = reclaimer.context()
    if policy == .perVMA {
      switch faultUnderCell(address, access, accessor, context) {
      case .done: return
      case .doneAround: return mapAround(address, context)
      // Again, under the lock.
      case .refused(.outOfMemory) where makeRoom(context): break
      case .overLimit: break
      case .refused(let reason):
        throw AccessFault(reason: reason, address: address, access: access)
      case .needsPage(let object, let index, let isRandom):
        if let reason = bringIn(object, index, isRandom: isRandom, context) {
          throw AccessFault(reason: reason, address: address, access: access)
        }
      case .unmapped, .needsSpaceLock: break
      }
    }
    while true {
      let hold = lock.read(AddressRange(pageOf: address), .fault)
      park.pass(.fault)
      context.pin()
      let outcome = resolve(address, access, hold, mayPublishIdentity: true, accessor, context)
      context.unpin()
      hold.release()
      switch outcome {
      case .done: return
      case .doneAround: return mapAround(address, context)
      case .needsPage(let object, let index, let isRandom):
        if let reason = bringIn(object, index, isRandom: isRandom, context) {
          throw AccessFault(reason: reason, address: address, access: access)
        }
      case .unmapped:
        if growStack(to: address, context) { continue }
        throw AccessFault(reason: .notMapped, address: address, access: access)
      case .refused(.outOfMemory) where makeRoom(context): continue
      case .overLimit:
        if makeRoomWithinLimit(context) { continue }
        throw AccessFault(reason: .outOfMemory, address: address, access: access)
      case .refused(let reason):
        throw AccessFault(reason: reason, address: address, access: access)
      case .needsSpaceLock: preconditionFailure("a fault under the space lock asked for it")
      }
    }
  }

  /// What became of a fault.
  enum Outcome {
    case done
    /// The page of a file was read; pages near it may be mapped too.
    case doneAround
    /// A page of a file has to be read in, under no lock: the object, with a reference, and the page.
    case needsPage(ObjectRef, UInt64, isRandom: Bool)
    case refused(AccessFault.Reason)
    /// The limit of resident memory allows no page now.
    case overLimit
    /// No VMA is there; a stack above may grow.
    case unmapped
    /// The VMA's lock word is not enough.
    case needsSpaceLock
  }

  /// Addresses that no VMA can cover (Linux `fault_in_kernel_space`, and the processor's own check).
  @inline(__always)
  private func checkCanonical(_ address: Address, _ access: AccessKind) throws(AccessFault) {
    if address < Address.spaceEnd { return }
    if address >= 1 << 47 && address < 0xffff_8000_0000_0000 {
      throw AccessFault(reason: .notCanonical, address: 0, access: access)
    }
    throw AccessFault(reason: .notMapped, address: address, access: access)
  }

  /// The fault under the lock word of its VMA (Linux `lock_vma_under_rcu`).
  private func faultUnderCell(
    _ address: Address, _ access: AccessKind, _ accessor: AccessorRef?, _ context: Context
  ) -> Outcome {
    context.pin()
    defer { context.unpin() }
    guard let hold = readCell(covering: AddressRange(pageOf: address), .fault, context) else {
      return .needsSpaceLock
    }
    park.pass(.fault)
    return resolve(address, access, hold, mayPublishIdentity: false, accessor, context)
  }

  /// The fault itself. The thread is pinned.
  func resolve(
    _ address: Address, _ access: AccessKind, _ hold: borrowing ReadHold,
    mayPublishIdentity: Bool, _ accessor: AccessorRef?, _ context: Context
  ) -> Outcome {
    let page = AddressRange(pageOf: address)
    LockMap.observe(.layout, hold, page)
    guard var record = layout.pointee.lookUp(address, context) else { return .unmapped }
    LockMap.observe(.vmaFlags, hold, page)
    let flags = record.pointee.flags
    guard flags.allows(access) else { return .refused(.notPermitted) }

    let isPrivate = !flags.contains(.shared)
    if isPrivate && access == .write && record.pointee.anonymous == nil {
      // Linux finds the guard before it looks whether the VMA of a file has an identity.
      if record.pointee.backing != nil, let leaf = tables.leaf(page.start),
        leaf.latchedEntry(page.start).isGuard
      {
        return .refused(.notMapped)
      }
      if !mayPublishIdentity { return .needsSpaceLock }
      guard let published = publishIdentity(record, address, hold, context) else {
        return .refused(.outOfMemory)
      }
      record = published
    }

    LockMap.observe(.pageTableEntry, hold, page)
    if isPrivate {
      return access == .write
        ? resolvePrivateWrite(page.start, record, accessor, context)
        : resolvePrivateRead(page.start, record, context)
    }
    return resolveShared(page.start, record, access, context)
  }

  /// Gives a VMA its anonymous identity, once (Linux `__anon_vma_prepare`): that of a neighbour it could
  /// be merged with, or a new one. `nil` without memory.
  func publishIdentity(
    _ record: RecordRef, _ address: Address, _ hold: borrowing ReadHold, _ context: Context
  ) -> RecordRef? {
    var change = LayoutChange()
    // The latch of an identity's object comes before a leaf's, so a new one is made between two looks.
    var candidate: MappingRef?
    defer {
      // A record that took it has a reference of its own.
      candidate?.release(context)
      change.dispose(context)
    }
    do throws(Errno) {
      while true {
        switch try layout.pointee.publishIdentity(at: address, candidate, hold, context, &change) {
        case .existing(let record), .reused(let record), .published(let record):
          return record
        case .needsCandidate:
          candidate = ObjectMapping.makeIdentity(
            space: identity,
            deltaPages: record.pointee.start.pageNumber &- record.pointee.pageOffset, arena,
            context)
          if candidate == nil { return nil }
        }
      }
    } catch {
      return nil
    }
  }

  // MARK: objects

  /// An access to a shared page: the object's page with the VMA's rights.
  private func resolveShared(
    _ page: Address, _ record: RecordRef, _ access: AccessKind, _ context: Context
  ) -> Outcome {
    guard let backing = record.pointee.backing else { return .refused(.notMapped) }
    return mapObjectPage(
      backing, page, record, writable: record.pointee.flags.contains(.write),
      isWrite: access == .write, context)
  }

  /// Maps the object's page at `page`, made if need be.
  func mapObjectPage(
    _ backing: MappingRef, _ page: Address, _ record: RecordRef, writable: Bool,
    isWrite: Bool = false, _ context: Context
  ) -> Outcome {
    // Before the object makes a page: nobody gets to a guarded one.
    let seen = tables.leaf(page)
    if let seen, seen.latchedEntry(page).isGuard { return .refused(.notMapped) }
    let object = backing.pointee.object
    if let file = object.pointee.file {
      return mapFilePage(
        file, backing, page, record, isWrite: isWrite, seen: seen, context)
    }
    let frame: FrameNumber
    switch object.pageCreating(backing.pageIndex(page), context) {
    case .frame(let found): frame = found
    case .none: return .refused(.noPage)
    case .noMemory: return .refused(.outOfMemory)
    }
    var rights = record.pointee.flags.pageRights
    if !writable { rights.remove(.write) }
    let kind: PageKind =
      switch object.pointee.kind {
      case .file: .file
      case .special: record.pointee.flags.contains(.device) ? .uncounted : .file
      case .sharedAnonymous, .anonymousIdentity: .sharedMemory
      }
    guard let charge = counters.admitResident(kind == .uncounted ? 0 : 1, context) else {
      arena.release(frame, context)
      return .overLimit
    }
    guard let leaf = tables.latchLeaf(page, creating: true, seen: seen, context) else {
      giveBack(frame, charge, context)
      return .refused(.outOfMemory)
    }
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    if kind == .sharedMemory && arena.isRemoved(frame) {
      // It goes (MADV_REMOVE): begin again when nobody sees it any more, lest some see a new page and some this one.
      leaf.pointee.latch.unlock(.pageTable)
      giveBack(frame, charge, context)
      object.waitForRemoval()
      return mapObjectPage(backing, page, record, writable: writable, context)
    }
    let entry = PageTableEntry(frame: frame, rights: rights, kind: kind)
    switch installObjectPage(entry, charge, page, leaf, record, context) {
    case .installed, .present: return .done
    case .guarded: return .refused(.notMapped)
    }
  }

  /// What became of an object's page that was to be mapped.
  enum ObjectPageOutcome {
    case installed
    /// Another thread was first, or the VMA has a copy: it has the rights now.
    case present
    case guarded
  }

  /// Installs an object's page and counts it, or gives what is there the rights; unlocks the leaf. The reference to the
  /// frame is the entry's, or let go.
  ///
  /// - Parameter charge: of one page, unless it is not counted; ended here.
  @inline(__always)
  func installObjectPage(
    _ entry: PageTableEntry, _ charge: ResidentCharge, _ page: Address, _ leaf: PageTableRef,
    _ record: RecordRef,
    _ context: Context
  ) -> ObjectPageOutcome {
    let isInstalled = leaf.install(entry, at: page)
    var isGuard = false
    if !isInstalled {
      let now = leaf.latchedEntry(page)
      isGuard = now.isGuard
      if now.frame == entry.frame { leaf.grant(entry.rights, at: page) }
      // Its own copy keeps the rights that copies have.
      if now.kind == .anonymous { leaf.grant(record.pointee.flags.readRights, at: page) }
    }
    leaf.pointee.latch.unlock(.pageTable)
    guard isInstalled else {
      giveBack(entry.frame, charge, context)
      return isGuard ? .guarded : .present
    }
    if entry.kind != .uncounted {
      counters.settleResident(charge, 1, context)
      counters.add(entry.kind == .file ? .rssFile : .rssSharedMemory, 1, context)
      LockMap.observe(.residency, .credit, .write)
    } else {
      counters.settleResident(charge, 0, context)
    }
    return .installed
  }

  /// A page that was made ready is not needed.
  func giveBack(_ frame: FrameNumber, _ charge: ResidentCharge, _ context: Context) {
    counters.settleResident(charge, 0, context)
    arena.release(frame, context)
  }
}
