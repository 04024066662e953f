// SPDX-License-Identifier: Apache-2.0
//
// Locking all mappings, and those to come. M4 and M10.
//
// Range: the whole space, for writing; then the pages of each VMA, for reading (BringIn.swift).
// Linux: mm/mlock.c `SYSCALL_DEFINE1(mlockall)`, `apply_mlockall_flags`.

import Synchronization
import SystemPackage

/// What `lockAllMemory` is to lock (Linux `MCL_*`).
public struct LockScope: OptionSet, Sendable, Hashable {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The mappings that are there (`MCL_CURRENT`).
  @inlinable public static var current: LockScope { LockScope(rawValue: 1) }
  /// Mappings that are made from now on, by `map` and by the heap's growth (`MCL_FUTURE`).
  @inlinable public static var future: LockScope { LockScope(rawValue: 2) }
  /// Their pages are not brought in but stay from when they come (`MCL_ONFAULT`).
  @inlinable public static var onFault: LockScope { LockScope(rawValue: 4) }
}

extension AddressSpace {
  /// Locks all mappings, or those to come, or both (`mlockall`): see `lockMemory`. What the last call said about mappings
  /// to come is forgotten. Their own growth, a stack's too, stays locked as they are.
  ///
  /// Takes the space lock for writing over the whole space, then for reading over each mapping in turn.
  ///
  /// - Throws: `EINVAL` for nothing, and for `.onFault` alone; `EPERM` where nothing may be locked; `ENOMEM` when all
  ///   that is mapped is more than `Limits.lockedMemory`, or without memory for the records of a mapping: the others
  ///   are locked then, which Linux calls a success. Pages that cannot be brought in are no error.
  public func lockAllMemory(_ scope: LockScope) throws(Errno) {
    if scope.isEmpty || scope == .onFault || scope.rawValue & ~7 != 0 { throw .invalidArgument }
    if !mayLock.load(ordering: .relaxed) { throw .notPermitted }
    var lock = VMAFlags.locked
    if scope.contains(.onFault) { lock.insert(.lockOnFault) }
    let isCurrent = scope.contains(.current)
    try setAllLocks(
      isCurrent ? lock : nil, ofNew: scope.contains(.future) ? lock : [])
    if isCurrent { bringIn(.wholeSpace) }
  }

  /// Ends all locks, and that new mappings are locked (`munlockall`).
  ///
  /// Takes the space lock for writing over the whole space.
  ///
  /// - Throws: `ENOMEM` without memory for the records of a mapping, which stays locked; the others are unlocked.
  public func unlockAllMemory() throws(Errno) {
    try setAllLocks([], ofNew: [])
  }

  /// - Parameters:
  ///   - lock: of what is mapped; `nil` = it stays as it is.
  ///   - new: of what will be.
  private func setAllLocks(_ lock: VMAFlags?, ofNew new: VMAFlags) throws(Errno) {
    let before = LockMap.enter(.lockMemory)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    var hold = self.lock.write(.wholeSpace, .lockMemory)
    context.pin()
    defer { context.unpin() }
    lockCells(.wholeSpace, &hold)
    park.pass(.lockMemory)
    LockMap.observe(.layout, hold, .wholeSpace)
    LockMap.observe(.futureLock, hold, .wholeSpace)
    var change = LayoutChange()
    var failure: Errno?
    do throws(Errno) {
      if let lock, !lock.isEmpty { try admitAll(&change, context) }
      futureLock.store(new.rawValue, ordering: .relaxed)
      if let lock { failure = lockAll(as: lock, hold, context, &change) }
    } catch {
      failure = error
    }
    end(&change, hold, context)
    if let failure { throw failure }
  }

  /// Gives each VMA a lock; one that there is no memory for does not keep the others from it.
  private func lockAll(
    as lock: VMAFlags, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) -> Errno? {
    var failure: Errno?
    var position: Address = 0
    while let record = layout.pointee.findNext(position) {
      let range = record.pointee.range
      do throws(Errno) {
        position = try modifyStep(
          from: range.start, to: range.end, hold, context, &change
        ) { .set($0.pointee.flags.locked(as: lock)) }.range.end
      } catch {
        failure = error
        position = range.end
      }
    }
    return failure
  }

  /// Everything that is mapped counts against the limit, whatever it is; charged is what will be new.
  private func admitAll(_ change: inout LayoutChange, _ context: Context) throws(Errno) {
    if !hasLimits { return }
    let limit = counters.limit(.lockedVM)
    if limit == SpaceCounters.unlimited { return }
    var (total, new): (UInt64, UInt64) = (0, 0)
    layout.pointee.forEachRecord(in: .wholeSpace) { record, _ in
      let pages = record.pointee.pageCount
      total += pages
      let flags = record.pointee.flags
      if !flags.contains(.locked) && !flags.contains(.special) { new += pages }
      return true
    }
    if Int64(total) > limit { throw .noMemory }
    try admitLock(new, already: 0, new: new, &change, context)
  }
}
