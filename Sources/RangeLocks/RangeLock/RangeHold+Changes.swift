// SPDX-License-Identifier: Apache-2.0
//
// Changing a granted range: a weaker mode, a stronger one, fewer keys.
//
// Guarantee and cost: see Directory+Change.swift. A change that fails leaves the hold as it was.

import CRangeland

extension RangeHold {
  /// Makes the mode weaker in one step: no writer comes between. A weaker hold stays as it is.
  ///
  /// Those that wait only for this hold, and do not conflict any more, enter; readers behind a waiting writer, and
  /// writers, go on waiting. Everything written under the hold is visible to them. Never waits.
  public mutating func downgrade(to mode: LockMode = .read) {
    if self.mode.rawValue > mode.rawValue { note.change(range, mode) }
    directory.downgrade(entry, to: mode)
  }

  /// Makes a hold for `.upgradeableRead` one for writing: keeps new readers of its keys out and waits for those
  /// that hold. Writers that wait go on waiting behind this hold. A writing hold stays as it is.
  ///
  /// What was read under the hold is still true afterwards: no writer comes between. Nobody else can wait for an
  /// upgrade of the same keys, so this cannot deadlock with another one, nor with a request for several ranges, which it goes
  /// before while that waits; it does wait for ever when the same thread holds a key for reading once more, which checked
  /// builds report.
  ///
  /// - Precondition: the mode is not `.read`; for that there is `tryUpgrade()`.
  @available(*, noasync, message: "blocks the thread; use the asynchronous upgrade")
  @inlinable @inline(__always)
  public mutating func upgrade(fileID: StaticString = #fileID, line: UInt = #line) {
    _ = upgradeWaiting(deadline: .max, CallSite(fileID, line))
  }

  /// Like `upgrade()`, but gives up at `deadline`, CLOCK_MONOTONIC time in nanoseconds; one that has passed does not wait.
  ///
  /// - Returns: false when the deadline passed first. Then the hold is what it was, without a break: who waited only because
  ///   of the upgrade enters, and a writer that waits goes on waiting.
  /// - Precondition: the mode is not `.read`; for that there is `tryUpgrade()`.
  @available(*, noasync, message: "blocks the thread; use the asynchronous upgrade")
  @inlinable @inline(__always)
  public mutating func upgrade(
    deadline: UInt64, fileID: StaticString = #fileID, line: UInt = #line
  ) -> Bool {
    upgradeWaiting(deadline: deadline, CallSite(fileID, line))
  }

  /// Makes a hold for `.upgradeableRead` one for writing, suspending the task while readers of its keys hold; see the
  /// blocking `upgrade()`. Never blocks the thread, beyond the short latches.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before the grant; the hold is what it was.
  /// - Precondition: the mode is not `.read`.
  @inlinable @inline(__always)
  public mutating func upgrade(
    fileID: StaticString = #fileID, line: UInt = #line
  ) async throws(CancellationError) {
    // Without a deadline it is a writer in the end.
    _ = try await upgradeSuspending(deadline: .max, CallSite(fileID, line))
  }

  /// The same, but gives up at `deadline`, CLOCK_MONOTONIC time in nanoseconds: false when it passed first.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before the grant; the hold is what it was.
  /// - Precondition: the mode is not `.read`.
  @inlinable @inline(__always)
  public mutating func upgrade(
    deadline: UInt64, fileID: StaticString = #fileID, line: UInt = #line
  ) async throws(CancellationError) -> Bool {
    try await upgradeSuspending(deadline: deadline, CallSite(fileID, line))
  }

  @usableFromInline
  mutating func upgradeWaiting(deadline: UInt64, _ site: CallSite) -> Bool {
    precondition(mode != .read, "RangeHold.upgrade: a plain reader may only try")
    return directory.upgrade(entry, deadline: deadline, note, site)
  }

  @usableFromInline
  mutating func upgradeSuspending(
    deadline: UInt64, _ site: CallSite
  ) async throws(CancellationError) -> Bool {
    precondition(mode != .read, "RangeHold.upgrade: a plain reader may only try")
    return try await directory.upgradeSuspending(entry, deadline: deadline, note, site)
  }

  /// Makes the hold one for writing if no other reader holds a key of it; true if it is one then. Never waits.
  ///
  /// On false the hold is as before. Waiting readers go on waiting, behind this hold: on true it goes before them. Nobody wrote
  /// between, and what other readers did happened before. False also when the system has no memory for saying so.
  public mutating func tryUpgrade() -> Bool {
    if directory.isStripe(entry) {
      guard let own = directory.leaveStripeHolding(entry) else { return false }
      entry = own
    }
    let isWriter = directory.tryUpgrade(entry)
    if isWriter { note.change(range, .write) }
    return isWriter
  }

  /// Gives up the keys outside `range`. Those that wait only for them enter, in the order of the queue, and see what was
  /// written under the hold. Never waits. A reader of a hot range keeps all of it when the system has no memory for saying
  /// so.
  ///
  /// - Precondition: `range` is part of the hold's range.
  public mutating func shrink(to range: KeyRange) {
    precondition(self.range.contains(range), "RangeHold.shrink: the range is not part of the hold")
    if directory.isStripe(entry) {
      // Nothing to give up, or no memory to say so: then all is kept.
      if range == self.range { return }
      guard let own = directory.leaveStripeHolding(entry) else { return }
      entry = own
    }
    note.change(range, mode)
    directory.shrink(entry, to: range)
  }
}
