// SPDX-License-Identifier: Apache-2.0
//
// What the limits say to an operation before it changes anything. R-3.
//
// Charged under the hold of the range and under no latch; settled as soon as the layout has changed, before
// anything else is waited for (SpaceCounters+Charges.swift).
// Source: Linux mm/mmap.c `do_mmap`, `may_expand_vm`; mm/vma.c `__mmap_setup`, `vms_gather_munmap_vmas`,
//   `split_vma`; mm/util.c `__vm_enough_memory`.

import SystemPackage

extension LayoutCounts {
  /// As amounts of the limited counters.
  var charge: Charge {
    Charge(
      pages: Int64(totalPages), dataPages: Int64(dataPages), lockedPages: Int64(lockedPages),
      committedPages: Int64(accountedPages), areas: Int64(areas))
  }
}

extension AddressSpace {
  /// Whether there is any limit.
  @inline(__always)
  var hasLimits: Bool { isLimited.load(ordering: .relaxed) }

  /// Settles a charge with what a change has done since it counted `before`.
  @inline(__always)
  func settle(
    _ granted: Charge, _ change: inout LayoutChange, since before: LayoutCounts, _ context: Context
  ) {
    if granted.isCharged { settleSlow(granted, &change, since: before, context) }
  }

  @inline(never)
  private func settleSlow(
    _ granted: Charge, _ change: inout LayoutChange, since before: LayoutCounts, _ context: Context
  ) {
    var done = change.counts
    done -= before
    done = done.limited
    // Of changes that charge none, locked pages are counted when they end.
    if granted.lockedPages == 0 { done.lockedPages = 0 }
    counters.settle(granted, done.charge, context)
    change.settle(done)
  }

  /// What a new mapping of `pages` pages takes, where `old` goes.
  private func charge(
    _ pages: UInt64, _ flags: VMAFlags, replacing old: LayoutCounts, areas: Int64,
    lockedPages: UInt64
  ) throws(Errno) -> Charge {
    // Linux credits all pages that go to both limits, whatever they are.
    let more = Int64(pages) - Int64(old.totalPages)
    var wanted = Charge(pages: more, areas: areas, checksPages: true)
    if flags.countsAsData { (wanted.dataPages, wanted.checksData) = (more, true) }
    // What goes is no credit here (`mlock_future_ok`).
    if flags.contains(.locked) { wanted.lockedPages = Int64(lockedPages) }
    if flags.contains(.account) {
      wanted.committedPages = Int64(pages) - Int64(old.accountedPages)
      if wanted.committedPages > Int64(clamping: largestPromise.load(ordering: .relaxed)) {
        throw .noMemory
      }
    }
    // Shared memory is promised as a whole, whatever its rights are (`shmem_acct_size`). Under strict overcommit
    // it is not counted: see docs/linux.md.
    if flags.contains(.shared) && !flags.contains(.noReserve)
      && pages > largestPromise.load(ordering: .relaxed)
    {
      throw .noMemory
    }
    return wanted
  }

  /// Refuses a mapping beyond the limit of their number, as Linux does before it looks at the address.
  @inline(__always)
  func refuseMany() throws(Errno) {
    if hasLimits, !counters.allows(.mapCount, Charge(areas: 1), reclaimer.context()) {
      throw .noMemory
    }
  }

  /// Refuses a new mapping that is locked: its caller may not lock, or not so much (Linux `do_mmap`). That comes after
  /// the address and before everything else.
  @inline(__always)
  func refuseLock(
    of pages: UInt64, _ flags: VMAFlags, isAsked: Bool, _ context: Context
  ) throws(Errno) {
    if hasLimits && flags.contains(.locked) { try refuseLockSlow(pages, isAsked, context) }
  }

  @inline(never)
  private func refuseLockSlow(
    _ pages: UInt64, _ isAsked: Bool, _ context: Context
  ) throws(Errno) {
    if isAsked && !mayLock.load(ordering: .relaxed) { throw .notPermitted }
    if !counters.allows(.lockedVM, Charge(lockedPages: Int64(pages)), context) {
      throw .resourceTemporarilyUnavailable
    }
  }

  /// Why a charge of so many pages was refused, of which `refuseLock` was asked before: others may have locked since.
  @inline(never)
  func refusal(ofLocking pages: UInt64, _ flags: VMAFlags, _ context: Context) -> Errno {
    let isLock =
      pages > 0 && flags.contains(.locked)
      && !counters.allows(.lockedVM, Charge(lockedPages: Int64(pages)), context)
    return isLock ? .resourceTemporarilyUnavailable : .noMemory
  }

  /// Charges a mapping where nothing is mapped.
  ///
  /// - Parameters:
  ///   - lockedLength: bytes that are locked besides what is locked now, if the flags say locked; `nil` = all.
  ///   - areasMayBeFewer: whether it may come without another mapping.
  @inline(__always)
  func admit(
    _ length: UInt64, _ flags: VMAFlags, lockedLength: UInt64? = nil,
    areasMayBeFewer: Bool = false, _ context: Context
  ) throws(Errno) -> Charge {
    if !hasLimits { return Charge() }
    let locked = (lockedLength ?? length) >> 12
    var wanted = try charge(
      length >> 12, flags, replacing: LayoutCounts(), areas: 1, lockedPages: locked)
    wanted.areasMayBeFewer = areasMayBeFewer
    guard let granted = counters.begin(wanted, context) else {
      throw refusal(ofLocking: locked, flags, context)
    }
    return granted
  }

  /// Charges a mapping of a range that is held. Where the size is what is refused, VMAs that straddle the ends of
  /// the range stay cut there, as in Linux.
  @inline(never)
  func admit(
    _ range: AddressRange, _ flags: VMAFlags, _ hold: borrowing WriteHold,
    _ change: inout LayoutChange, _ context: Context
  ) throws(Errno) -> Charge {
    let old = layout.pointee.usage(in: range)
    let pages = range.length >> 12
    do throws(Errno) {
      // Two where a VMA is cut in the middle; if only one is allowed, `insert` looks whether that will do.
      var wanted = try charge(pages, flags, replacing: old, areas: 2, lockedPages: pages)
      wanted.areasMayBeFewer = true
      guard let granted = counters.begin(wanted, context) else {
        throw refusal(ofLocking: pages, flags, context)
      }
      if granted.areas(of: 2) > 0 { return granted }
      counters.settle(granted, Charge(), context)
      throw .noMemory
    } catch {
      if error == .noMemory { try splitEnds(range, hold, &change, context) }
      throw error
    }
  }

  private func splitEnds(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ change: inout LayoutChange,
    _ context: Context
  ) throws(Errno) {
    guard let granted = counters.begin(Charge(areas: 2, areasMayBeFewer: true), context) else {
      return
    }
    let before = change.counts
    let first = layout.pointee.find(range.start)
    let isMiddle =
      first.map { $0.pointee.start < range.start && $0.pointee.end > range.end } ?? false
    // Too many mappings is what Linux finds first.
    if granted.areas(of: 2) > (isMiddle ? 1 : 0) {
      try? layout.pointee.split(at: range.start, hold, context, &change)
      try? layout.pointee.split(at: range.end, hold, context, &change)
    }
    settle(granted, &change, since: before, context)
  }

  /// Deals with the VMA at `position` as `LayoutTree.modifyStep` does, within the limits.
  ///
  /// - Throws: `ENOMEM` for data or promises beyond a limit, and for splits beyond the number of mappings: where only
  ///   the second split is one too many, the first stays.
  @inline(__always)
  func modifyStep(
    from position: Address, to end: Address, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ decide: (RecordRef) -> FlagsDecision,
    confirms: Bool = false, _ confirm: (UnsafeMutablePointer<RecordDraft>) -> Void = { _ in }
  ) throws(Errno) -> ModifyStep {
    if !hasLimits {
      return try layout.pointee.modifyStep(
        from: position, to: end, hold, context, &change, decide, confirms: confirms, confirm)
    }
    return try modifyLimited(
      from: position, to: end, hold, context, &change, decide, confirms: confirms, confirm)
  }

  @inline(never)
  private func modifyLimited(
    from position: Address, to end: Address, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ decide: (RecordRef) -> FlagsDecision,
    confirms: Bool, _ confirm: (UnsafeMutablePointer<RecordDraft>) -> Void
  ) throws(Errno) -> ModifyStep {
    var granted = Charge()
    let before = change.counts
    if let seen = layout.pointee.find(position), case .set(let flags) = decide(seen),
      flags != seen.pointee.flags
    {
      let pages = (min(end, seen.pointee.end) - position) >> 12
      granted = try admitChange(of: pages, seen.pointee.flags, flags, context)
    }
    let areas = granted.areas(of: 2)
    let step: ModifyStep
    do throws(Errno) {
      step = try layout.pointee.modifyStep(
        from: position, to: end, areas: areas, hold, context, &change, decide, confirms: confirms,
        confirm)
    } catch {
      settle(granted, &change, since: before, context)
      throw error
    }
    settle(granted, &change, since: before, context)
    return step
  }

  private func admitChange(
    of pages: UInt64, _ old: VMAFlags, _ new: VMAFlags, _ context: Context
  ) throws(Errno) -> Charge {
    let pages = Int64(pages)
    var wanted = Charge(areas: 2, areasMayBeFewer: true, spareAreas: 1)
    // Linux compares `may_expand_vm` of the new flags with that of the old ones: beyond RLIMIT_AS both refuse, and
    // nothing comes of it.
    if new.countsAsData && !old.countsAsData
      && counters.allows(.totalVM, Charge(pages: pages), context)
    {
      wanted.dataPages = pages
    }
    if new.contains(.account) && !old.contains(.account) {
      wanted.committedPages = pages
      if UInt64(pages) > largestPromise.load(ordering: .relaxed) { throw .noMemory }
    }
    guard let granted = counters.begin(wanted, context) else { throw .noMemory }
    return granted
  }
}
