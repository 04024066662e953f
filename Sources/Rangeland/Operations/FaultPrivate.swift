// SPDX-License-Identifier: Apache-2.0
//
// Faults on private memory.
//
// Range: the page, for reading, or the word of its VMA.
// Linux: mm/memory.c `do_anonymous_page`, `do_cow_fault`, `do_wp_page`, `wp_page_copy`, `wp_page_reuse`.

extension AddressSpace {
  /// First read of a private page: the page of zeros, or the file's page.
  func resolvePrivateRead(
    _ page: Address, _ record: RecordRef, _ context: Context
  ) -> Outcome {
    guard let backing = record.pointee.backing else {
      return install(.zeroPage(rights: record.pointee.flags.pageRights), page, record, context)
    }
    return mapObjectPage(backing, page, record, writable: false, context)
  }

  /// A write to a private page: a page of its own, filled with zeros or copied.
  func resolvePrivateWrite(
    _ page: Address, _ record: RecordRef, _ accessor: AccessorRef?, _ context: Context
  ) -> Outcome {
    // Without the latch; what it decides is checked again under it.
    let seen = tables.leaf(page)
    var existing = PageTableEntry.empty
    // Acquires the page that `install` publishes.
    if let seen {
      existing.bits = seen.entry(of: page).pointee.load(ordering: .acquiring)
    }
    if existing.isGuard { return .refused(.notMapped) }
    var source: PageTableEntry?
    if existing.isPresent && !existing.isZeroPage { source = existing }
    if source == nil, existing.isEmpty, let backing = record.pointee.backing {
      // A file page that was never read: there is nothing to copy from until it is mapped.
      switch mapObjectPage(backing, page, record, writable: false, context) {
      case .done, .doneAround: source = tables.lookup(page, context)
      case let other: return other
      }
    }
    if let source, source.kind == .anonymous, arena.isExclusive(source.frame) {
      return reusePage(page, record, accessor, context)
    }
    // A copy comes for a page that is resident already.
    let isReplacement = source.map { $0.kind != .uncounted } ?? false
    guard let charge = counters.admitResident(isReplacement ? 0 : 1, context) else {
      return .overLimit
    }
    guard let frame = arena.allocate(zeroed: source == nil, context) else {
      counters.settleResident(charge, 0, context)
      return .refused(.outOfMemory)
    }
    let anonymous = record.pointee.anonymous!
    arena.setOwner(of: frame, anonymous.pointee.object, index: anonymous.pageIndex(page))
    var new = PageTableEntry(
      frame: frame, rights: record.pointee.flags.pageRights, kind: .anonymous)
    if let accessor { new = accessor.claimed(new) }
    guard let leaf = tables.latchLeaf(page, creating: true, seen: seen, context) else {
      giveBack(frame, charge, context)
      return .refused(.outOfMemory)
    }
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    let now = leaf.latchedEntry(page)
    if now.isEmpty {
      if source != nil {
        // The page went while we looked (MADV_DONTNEED): begin again.
        leaf.pointee.latch.unlock(.pageTable)
        giveBack(frame, charge, context)
        return resolvePrivateWrite(page, record, accessor, context)
      }
      _ = leaf.install(new, at: page)
      accessor?.remember(page, new)
      leaf.pointee.latch.unlock(.pageTable)
      counters.add(.rssAnonymous, 1, context)
      counters.settleResident(charge, 1, context)
      LockMap.observe(.residency, .credit, .write)
      return .done
    }
    if now.isGuard {
      leaf.pointee.latch.unlock(.pageTable)
      giveBack(frame, charge, context)
      return .refused(.notMapped)
    }
    if now.isWritable || (now.kind == .anonymous && source == nil) {
      // Another thread was first (F-2): its page stays.
      leaf.pointee.latch.unlock(.pageTable)
      giveBack(frame, charge, context)
      return now.isWritable ? .done : reusePage(page, record, accessor, context)
    }
    if let source {
      guard now.frame == source.frame else {
        leaf.pointee.latch.unlock(.pageTable)
        giveBack(frame, charge, context)
        return resolvePrivateWrite(page, record, accessor, context)
      }
      // Others may write to the page of an object.
      if source.kind == .anonymous {
        arena.pointee.bytes(of: frame).copyMemory(
          from: arena.pointee.bytes(of: source.frame), byteCount: Int(Address.pageSize))
      } else {
        copyPage(
          from: arena.pointee.bytes(of: source.frame), to: arena.pointee.bytes(of: frame))
      }
    }
    var drops = FrameDropList(arena, accessors, context)
    tables.replace(new, at: page, in: leaf, &drops)
    accessor?.remember(page, new)
    leaf.pointee.latch.unlock(.pageTable)
    let replaced = drops.residentPages
    counters.settleResident(charge, 1 - replaced, context)
    account(drops, replaced: replaced, context)
    counters.add(.rssAnonymous, 1, context)
    drops.release()
    return .done
  }

  /// The page is the VMA's own already: it gets the rights back that `protect` took (Linux `wp_page_reuse`).
  private func reusePage(
    _ page: Address, _ record: RecordRef, _ accessor: AccessorRef?, _ context: Context
  ) -> Outcome {
    guard let leaf = tables.latchLeaf(page, creating: false, context) else {
      return resolvePrivateWrite(page, record, accessor, context)
    }
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    let now = leaf.latchedEntry(page)
    let isOwn =
      now.isPresent && now.kind == .anonymous
      && arena.isExclusive(now.frame)
    if isOwn { leaf.grant(record.pointee.flags.pageRights, at: page) }
    leaf.pointee.latch.unlock(.pageTable)
    return isOwn ? .done : resolvePrivateWrite(page, record, accessor, context)
  }

  /// Installs an entry that is not counted, or gives a present page the VMA's rights to read.
  private func install(
    _ entry: PageTableEntry, _ page: Address, _ record: RecordRef, _ context: Context
  ) -> Outcome {
    guard let leaf = tables.latchLeaf(page, creating: true, context) else {
      return .refused(.outOfMemory)
    }
    LockMap.observe(.pageTableEntry, .pageTable, .write)
    var isGuard = false
    if !leaf.install(entry, at: page) {
      leaf.grant(record.pointee.flags.readRights, at: page)
      isGuard = leaf.latchedEntry(page).isGuard
    }
    leaf.pointee.latch.unlock(.pageTable)
    return isGuard ? .refused(.notMapped) : .done
  }
}
