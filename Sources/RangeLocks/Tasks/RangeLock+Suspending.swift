// SPDX-License-Identifier: Apache-2.0
//
// Asking for ranges, or for the right to write, in a task: what the calls in RangeLock+Tasks.swift and
// RangeHold+Changes.swift do.
//
// Guarantee: nil or false when the deadline passed first, an error when the task was cancelled first; nothing is left
// behind then.
// Mechanism: asks like a thread; what waits is left to `Directory.suspend`.
// Cost: as a request of a thread, and a suspension if it has to wait.

import CRangeland

extension RangeLock {
  @usableFromInline
  func acquire(
    _ range: KeyRange, _ mode: LockMode, deadline: UInt64, _ site: CallSite
  ) async throws(CancellationError) -> EntryRef? {
    if deadline == .max { directory.checkOrder(range, mode, site) }
    if let entry = acquireEasily(range, mode) { return entry }
    let isObserved = directory.isObserved
    if isObserved { directory.tellStarted(range, mode) }
    do throws(CancellationError) {
      let entry = try await acquireSuspending(range, mode, deadline: deadline, site)
      if isObserved { directory.tellEnded(range, mode, entry) }
      return entry
    } catch {
      if isObserved { directory.tellEnded(range, mode, nil) }
      throw error
    }
  }

  /// Asks until the request is granted.
  private func acquireSuspending(
    _ range: KeyRange, _ mode: LockMode, deadline: UInt64, _ site: CallSite
  ) async throws(CancellationError) -> EntryRef? {
    let pool = directory.pool
    while true {
      guard let entry = pool.take().map(EntryRef.init) else {
        if !(try await waitForMemory(deadline: deadline)) { return nil }
        continue
      }
      let alarm = directory.makeAlarm(deadline: deadline)
      if deadline != .max, alarm == nil {
        pool.give(entry.raw)
        if !(try await waitForMemory(deadline: deadline)) { return nil }
        continue
      }
      switch directory.ask(range, mode, entry) {
      case .granted:
        if let alarm { pool.give(alarm.raw) }
        return entry
      case .queued:
        directory.counters.add(.contended)
        let note = directory.noteWait(entry, site, canGiveUp: deadline != .max)
        let isGranted = await directory.suspend(entry, deadline: deadline, alarm, note)
        note.end()
        if let alarm { pool.give(alarm.raw) }
        if !isGranted { return try gaveUp() }
        directory.counters.add(.handOffs)
        return entry
      case .refused, .noMemory, .moved:
        pool.give(entry.raw)
        if let alarm { pool.give(alarm.raw) }
        if !(try await waitForMemory(deadline: deadline)) { return nil }
      }
    }
  }

  @usableFromInline
  func acquire(
    overAll requests: [RangeRequest], deadline: UInt64, _ site: CallSite
  ) async throws(CancellationError) -> EntryGroup? {
    precondition(!requests.isEmpty, "RangeLock: a request has at least one range")
    if deadline == .max {
      RangeRequest.withPieces(of: requests) { directory.checkOrder($0, site) }
    }
    let isObserved = directory.isObserved
    if isObserved { for piece in requests { directory.tellStarted(piece.range, piece.mode) } }
    do throws(CancellationError) {
      let group = try await acquireSuspending(requests, deadline: deadline, site)
      if isObserved {
        RangeRequest.withPieces(of: requests) { directory.tellEnded($0, group) }
      }
      return group
    } catch {
      if isObserved { for piece in requests { directory.tellEnded(piece.range, piece.mode, nil) } }
      throw error
    }
  }

  private func acquireSuspending(
    _ requests: [RangeRequest], deadline: UInt64, _ site: CallSite
  ) async throws(CancellationError) -> EntryGroup? {
    while true {
      guard
        let group = RangeRequest.withPieces(of: requests, { directory.makeGroup($0) })
      else {
        if !(try await waitForMemory(deadline: deadline)) { return nil }
        continue
      }
      let alarm = directory.makeAlarm(deadline: deadline)
      if deadline != .max, alarm == nil {
        directory.discard(group)
        if !(try await waitForMemory(deadline: deadline)) { return nil }
        continue
      }
      switch directory.publishInDirectory(group, mayWait: true) {
      case .granted:
        if let alarm { directory.pool.give(alarm.raw) }
        return group
      case .queued:
        directory.counters.add(.contended)
        let note = directory.noteWait(group, site, canGiveUp: deadline != .max)
        let isGranted = await directory.suspend(group.waiter, deadline: deadline, alarm, note)
        note.end()
        if let alarm { directory.pool.give(alarm.raw) }
        if !isGranted { return try gaveUp() }
        directory.counters.add(.handOffs)
        return group
      case .refused, .noMemory, .moved:
        directory.discard(group)
        if let alarm { directory.pool.give(alarm.raw) }
        if !(try await waitForMemory(deadline: deadline)) { return nil }
      }
    }
  }

  /// No event says that memory came back. False when the deadline has passed.
  private func waitForMemory(deadline: UInt64) async throws(CancellationError) -> Bool {
    try await directory.waitForMemory(deadline: deadline)
  }
}

/// A request gave up: nil, its deadline has passed, unless its task was cancelled.
private func gaveUp<Granted>() throws(CancellationError) -> Granted? {
  if Task.isCancelled { throw CancellationError() }
  return nil
}

extension Directory {
  /// What rings at the deadline of a request that may have to wait; nil without one, or without memory.
  fileprivate func makeAlarm(deadline: UInt64) -> Alarm? {
    deadline == .max ? nil : AlarmClock.shared.makeAlarm(pool)
  }

  fileprivate func waitForMemory(deadline: UInt64) async throws(CancellationError) -> Bool {
    if Task.isCancelled { throw CancellationError() }
    if deadline != .max, rl_monotonic_ns() >= deadline { return false }
    await Task.yield()
    return true
  }

  /// `upgrade(_:deadline:_:_:)` for a task.
  func upgradeSuspending(
    _ entry: EntryRef, deadline: UInt64, _ note: HoldNote, _ site: CallSite
  ) async throws(CancellationError) -> Bool {
    if upgradeEasily(entry) {
      note.change(entry.range, .write)
      return true
    }
    let isObserved = isObserved
    if isObserved { tellStarted(entry.range, .write) }
    do throws(CancellationError) {
      let isWriter = try await upgradePatientlySuspending(entry, deadline: deadline, note, site)
      note.change(entry.range, entry.pointer.pointee.mode)
      if isObserved { tellEnded(entry.range, .write, isWriter ? entry : nil) }
      return isWriter
    } catch {
      note.change(entry.range, entry.pointer.pointee.mode)
      if isObserved { tellEnded(entry.range, .write, nil) }
      throw error
    }
  }

  private func upgradePatientlySuspending(
    _ entry: EntryRef, deadline: UInt64, _ note: HoldNote, _ site: CallSite
  ) async throws(CancellationError) -> Bool {
    while true {
      let alarm = makeAlarm(deadline: deadline)
      guard deadline == .max || alarm != nil, let waiter = makeUpgrade(of: entry) else {
        if let alarm { pool.give(alarm.raw) }
        if !(try await waitForMemory(deadline: deadline)) { return false }
        continue
      }
      if upgradeOnce(entry, waiter) == .granted {
        if let alarm { pool.give(alarm.raw) }
        waiter.recycle(pool)
        return true
      }
      counters.add(.contended)
      let waitNote = noteUpgrade(entry, of: note, site, canGiveUp: deadline != .max)
      let isGranted = await suspend(waiter, deadline: deadline, alarm, waitNote)
      waitNote.end()
      if let alarm { pool.give(alarm.raw) }
      if isGranted {
        endUpgrade(entry, waiter)
      } else if Task.isCancelled {
        throw CancellationError()
      }
      return isGranted
    }
  }
}
