// SPDX-License-Identifier: Apache-2.0
//
// A stack grows: an access below a mapping made with `.growsDown` extends it down to the page of the access.
//
// Range: the pages that are added and the 256 pages below them, where nothing may be mapped that can be accessed,
// for writing. The stack is not held; Layout looks at it again when it publishes.
// Linux: mm/mmap_lock.c `lock_mm_and_find_vma`, mm/vma.c `expand_downwards`.

import SystemPackage

extension AddressSpace {
  /// Extends the stack above `address` to its page, if there is one that may grow.
  ///
  /// - Returns: whether the page is mapped now: the access is to be tried again.
  @inline(never)
  func growStack(to address: Address, _ context: Context) -> Bool {
    guard mayGrow(to: address, context) else { return false }
    let before = LockMap.enter(.growStack)
    defer { LockMap.leave(before) }
    var candidate: MappingRef?
    defer { candidate?.release(context) }
    while true {
      switch tryGrow(to: address, candidate, context) {
      case .done: return true
      case .refused: return false
      case .again: continue
      case .needsCandidate(let deltaPages):
        candidate?.release(context)
        // The latch of an identity's object comes before a leaf's: it is made between two looks.
        candidate = ObjectMapping.makeIdentity(
          space: identity, deltaPages: deltaPages, arena, context)
        if candidate == nil { return false }
      }
    }
  }

  /// Whether the next mapping above is a stack. Without a lock: most refused accesses end here.
  private func mayGrow(to address: Address, _ context: Context) -> Bool {
    context.pin()
    defer { context.unpin() }
    guard let next = layout.pointee.findNext(address) else { return false }
    // Mapped meanwhile: to be tried again.
    return next.pointee.start <= address || next.pointee.flags.contains(.growsDown)
  }

  private enum Growth {
    case done
    case refused
    case again
    case needsCandidate(deltaPages: UInt64)
  }

  private func tryGrow(
    to address: Address, _ candidate: MappingRef?, _ context: Context
  ) -> Growth {
    context.pin()
    defer { context.unpin() }
    guard let seen = layout.pointee.findNext(address) else { return .refused }
    if seen.pointee.start <= address { return .done }
    guard seen.pointee.flags.contains(.growsDown), address >= PlacementLimits.smallestHint else {
      return .refused
    }
    let start = address.pageStart
    let old = seen.pointee.start
    let gap = VMARecord.guardGapPages * Address.pageSize
    let range = AddressRange(start: start - min(start, gap), end: old)
    // Nothing is held while we wait, the epoch included.
    context.unpin()
    var hold = lock.write(range, .growStack)
    context.pin()
    lockCells(range, &hold)
    park.pass(.growStack)
    LockMap.observe(.layout, hold, range)
    guard let next = layout.pointee.findNext(address) else { return .refused }
    if next.pointee.start <= address { return .done }
    guard next.pointee.start == old, next.pointee.flags.contains(.growsDown) else { return .again }
    if let previous = layout.pointee.findPrevious(old), previous.pointee.end > range.start,
      !previous.pointee.flags.contains(.growsDown),
      !previous.pointee.flags.isDisjoint(with: .access)
    {
      return .refused
    }
    return extend(next, to: start, candidate, hold, context)
  }

  /// Charges the growth and publishes it.
  private func extend(
    _ stack: RecordRef, to start: Address, _ candidate: MappingRef?, _ hold: consuming WriteHold,
    _ context: Context
  ) -> Growth {
    let old = stack.pointee.start
    var change = LayoutChange()
    var outcome: GrowthOutcome?
    // The stack itself is not held: Layout looks whether it is still locked or not.
    let isLocked = stack.pointee.flags.contains(.locked)
    let granted = admitGrowth((old - start) >> 12, isLocked: isLocked, context)
    do throws(Errno) {
      outcome = try layout.pointee.grow(
        from: old, to: start, isLocked: isLocked,
        longest: granted == nil ? 0 : stackLimit.load(ordering: .relaxed), candidate, hold, context,
        &change)
    } catch {}
    settle(granted ?? Charge(), &change, since: LayoutCounts(), context)
    end(&change, hold, context)
    switch outcome {
    case .done: return .done
    case .changed: return .again
    case .needsCandidate(let deltaPages): return .needsCandidate(deltaPages: deltaPages)
    case .tooLong, nil: return .refused
    }
  }

  /// `nil` = a limit does not allow it. Promised are the pages of every stack.
  private func admitGrowth(_ pages: UInt64, isLocked: Bool, _ context: Context) -> Charge? {
    if !hasLimits { return Charge() }
    if pages > largestPromise.load(ordering: .relaxed) { return nil }
    return counters.begin(
      Charge(
        pages: Int64(pages), lockedPages: isLocked ? Int64(pages) : 0,
        committedPages: Int64(pages)), context)
  }
}
