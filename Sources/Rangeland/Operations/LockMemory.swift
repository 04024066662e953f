// SPDX-License-Identifier: Apache-2.0
//
// Locking memory: its pages are brought in and stay. M4.
//
// Range: [start, end), for writing, to mark the mappings; then for reading, to bring their pages in (BringIn.swift).
// Linux: mm/mlock.c `do_mlock`, `apply_vma_lock_flags`, `mlock_fixup`, `count_mm_mlocked_page_nr`.

import SystemPackage

extension AddressSpace {
  /// Locks the mappings of a range and brings their pages in (`mlock`, `mlock2`). Locked pages are not thrown away by
  /// advice, and stay when memory is short. VMAs are split at the ends of the range and merge where all is equal;
  /// locking again changes nothing. Special mappings stay as they are, and are not counted.
  ///
  /// Takes the space lock for writing over the range, then for reading over its pieces.
  ///
  /// - Parameters:
  ///   - start: any address: the range is extended to whole pages.
  ///   - length: in bytes; 0 does nothing.
  ///   - onFault: pages are not brought in but stay from when they come (`MLOCK_ONFAULT`).
  /// - Throws: in Linux's order `EPERM` where nothing may be locked (`Limits.lockedMemory` is 0); `ENOMEM` when the
  ///   range, holes included, and what is locked outside of it is more than `Limits.lockedMemory`; `EINVAL` for a
  ///   range that wraps; `ENOMEM` for a hole, for pages that may not be accessed, or without memory for the records of
  ///   a split; `EAGAIN` without memory for pages. What comes before a hole is locked, and locked is everything when
  ///   pages cannot be brought in.
  public func lockMemory(
    at start: Address, length: UInt64, onFault: Bool = false
  ) throws(Errno) {
    if !mayLock.load(ordering: .relaxed) { throw .notPermitted }
    var lock = VMAFlags.locked
    if onFault { lock.insert(.lockOnFault) }
    let request = LockRequest(start, length)
    try setLock(request, lock)
    guard let range = request.range else { return }
    do throws(Errno) {
      try bringIn(range, stopsAtError: true)
    } catch {
      // Linux `__mlock_posix_error_return`.
      throw error == .badAddress ? .noMemory : .resourceTemporarilyUnavailable
    }
  }

  /// Ends the locks of a range (`munlock`). Its pages stay in memory.
  ///
  /// Takes the space lock for writing over the range.
  ///
  /// - Parameters: as of `lockMemory`.
  /// - Throws: `EINVAL` for a range that wraps; `ENOMEM` for a hole, or without memory for the records of a split.
  ///   What comes before it is unlocked.
  public func unlockMemory(at start: Address, length: UInt64) throws(Errno) {
    try setLock(LockRequest(start, length), [])
  }

  private func setLock(_ request: LockRequest, _ lock: VMAFlags) throws(Errno) {
    let before = LockMap.enter(.lockMemory)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    guard let range = request.range else {
      // Nothing that could be mapped.
      var change = LayoutChange()
      if !lock.isEmpty { try admitLock(request.pages, already: 0, new: 0, &change, context) }
      count(&change, context)
      return try request.refuseRest()
    }
    var hold = self.lock.write(range, .lockMemory)
    context.pin()
    defer { context.unpin() }
    lockCells(range, &hold)
    park.pass(.lockMemory)
    LockMap.observe(.layout, hold, range)
    var change = LayoutChange()
    var failure: Errno?
    do throws(Errno) {
      if !lock.isEmpty { try admitLock(request, range, &change, context) }
      if request.wraps { throw .invalidArgument }
      var position = range.start
      while position < range.end {
        position = try modifyStep(from: position, to: range.end, hold, context, &change) {
          .set($0.pointee.flags.locked(as: lock))
        }.range.end
      }
      try request.refuseRest()
    } catch {
      failure = error
    }
    end(&change, hold, context)
    if let failure { throw failure }
  }

  /// Charges what the range will have locked. The range is held.
  private func admitLock(
    _ request: LockRequest, _ range: AddressRange, _ change: inout LayoutChange,
    _ context: Context
  ) throws(Errno) {
    // The common case asks nobody; the kernel's own limit of lengths is beyond any real one.
    if !hasLimits && request.pages < 1 << 51 { return }
    var already: UInt64 = 0
    var new: UInt64 = 0
    var next = range.start
    layout.pointee.forEachRecord(in: range) { record, part in
      let start = max(part.start, range.start)
      let pages = (min(part.end, range.end) - start) >> 12
      let flags = record.pointee.flags
      if flags.contains(.locked) {
        already += pages
      } else if start == next && !flags.contains(.special) && !request.wraps {
        new += pages
      }
      // Behind a hole nothing is done.
      if start == next { next = part.end }
      return true
    }
    try admitLock(request.pages, already: already, new: new, &change, context)
  }

  /// Refuses a request for `pages` pages, of which some are locked already, or charges those that will be new.
  func admitLock(
    _ pages: UInt64, already: UInt64, new: UInt64, _ change: inout LayoutChange,
    _ context: Context
  ) throws(Errno) {
    if counters.limit(.lockedVM) == SpaceCounters.unlimited {
      // Not even without a limit more pages than the kernel's arithmetic has (`RLIM_INFINITY` in pages).
      let all = pages - already + UInt64(max(0, counters.value(.lockedVM)))
      if all > 1 << 52 - 1 && !canLockBeyondLimit.load(ordering: .relaxed) { throw .noMemory }
      return
    }
    let wanted = Charge(lockedPages: Int64(pages - already), checksLocked: true)
    guard let granted = counters.begin(wanted, context) else { throw .noMemory }
    // What a hole or a special mapping takes is not kept from others.
    counters.settle(granted, Charge(lockedPages: Int64(new)), context)
    var done = LayoutCounts()
    done.lockedPages = Int(new)
    change.settle(done)
  }
}

/// The range of a lock, as the kernel computes it.
struct LockRequest {
  /// In pages, holes included.
  let pages: UInt64
  /// Where mappings can be; `nil` = nowhere.
  let range: AddressRange?
  /// Whether it ends before it begins.
  let wraps: Bool
  /// Whether it has pages beyond the space, where nothing is mapped.
  private let endsInHole: Bool

  init(_ address: Address, _ length: UInt64) {
    // `PAGE_ALIGN`: wraps for the last lengths.
    let rounded = (length &+ (address & 4095) &+ 4095) & ~4095
    let start = address & ~4095
    let end = start &+ rounded
    pages = rounded >> 12
    wraps = end < start
    endsInHole = rounded != 0 && end > Address.spaceEnd
    let last = wraps ? Address.spaceEnd : min(end, Address.spaceEnd)
    range = start < last ? AddressRange(start: start, end: last) : nil
  }

  /// What the mappings have nothing to do with.
  func refuseRest() throws(Errno) {
    if wraps { throw .invalidArgument }
    if endsInHole { throw .noMemory }
  }
}
