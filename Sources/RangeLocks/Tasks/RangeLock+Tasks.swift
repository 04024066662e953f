// SPDX-License-Identifier: Apache-2.0
//
// Locking in tasks.

import CRangeland

extension RangeLock {
  /// Locks `range`, suspending the task while conflicting requests that came before hold or wait. Never blocks the
  /// thread, beyond the short latches.
  ///
  /// Everything written under conflicting holds that ended before is visible. The hold may be released by any
  /// task or thread.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before the grant: the request then stops nobody. A
  ///   free range is granted even to a cancelled task.
  public func lock(
    over range: KeyRange, _ mode: LockMode
  ) async throws(CancellationError) -> RangeHold {
    if let entry = acquireEasily(range, mode) {
      return RangeHold(entry: entry, directory: directory)
    }
    let isObserved = directory.isObserved
    if isObserved { directory.tellStarted(range, mode) }
    do throws(CancellationError) {
      let entry = try await acquireSuspending(range, mode)
      if isObserved { directory.tellEnded(range, mode, entry) }
      return RangeHold(entry: entry, directory: directory)
    } catch {
      if isObserved { directory.tellEnded(range, mode, nil) }
      throw error
    }
  }

  /// Asks until the request is granted.
  private func acquireSuspending(
    _ range: KeyRange, _ mode: LockMode
  ) async throws(CancellationError) -> EntryRef {
    while true {
      guard let entry = directory.pool.take().map(EntryRef.init) else {
        try await waitForMemory()
        continue
      }
      switch directory.ask(range, mode, entry) {
      case .granted: return entry
      case .queued:
        directory.counters.add(.contended)
        if !(await directory.suspend(entry)) { throw CancellationError() }
        directory.counters.add(.handOffs)
        return entry
      case .refused, .noMemory, .moved:
        directory.pool.give(entry.raw)
        try await waitForMemory()
      }
    }
  }

  /// Locks several ranges in one step, suspending the task; see the blocking `lock(overAll:)`.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before the grant.
  /// - Precondition: there is a range.
  public func lock(
    overAll requests: [RangeRequest]
  ) async throws(CancellationError) -> RangeSetHold {
    precondition(!requests.isEmpty, "RangeLock: a request has at least one range")
    let isObserved = directory.isObserved
    if isObserved { for piece in requests { directory.tellStarted(piece.range, piece.mode) } }
    do throws(CancellationError) {
      let group = try await acquireSuspending(requests)
      if isObserved {
        group.visitAll { directory.tellEnded($0.range, $0.pointer.pointee.mode, $0) }
      }
      return RangeSetHold(group: group, directory: directory)
    } catch {
      if isObserved { for piece in requests { directory.tellEnded(piece.range, piece.mode, nil) } }
      throw error
    }
  }

  private func acquireSuspending(
    _ requests: [RangeRequest]
  ) async throws(CancellationError) -> EntryGroup {
    while true {
      guard
        let group = RangeRequest.withPieces(of: requests, { directory.makeGroup($0) })
      else {
        try await waitForMemory()
        continue
      }
      switch directory.publishInDirectory(group, mayWait: true) {
      case .granted: return group
      case .queued:
        directory.counters.add(.contended)
        var place = 0
        while let entry = group[place] {
          if !(await directory.suspend(entry)) {
            directory.takeBack(group, except: place)
            throw CancellationError()
          }
          place += 1
        }
        directory.counters.add(.handOffs)
        return group
      case .refused, .noMemory, .moved:
        directory.discard(group)
        try await waitForMemory()
      }
    }
  }

  /// No event says that memory came back.
  private func waitForMemory() async throws(CancellationError) {
    if Task.isCancelled { throw CancellationError() }
    await Task.yield()
  }

  /// Runs `body` while `range` is held in `mode`. Suspends like `lock(over:_:)`.
  ///
  /// - Throws: `CancellationError`, or what `body` throws.
  public func withLock<Result>(
    over range: KeyRange, _ mode: LockMode, _ body: () async throws -> Result
  ) async throws -> Result {
    let hold: RangeHold = try await lock(over: range, mode)
    let result: Result
    do {
      result = try await body()
    } catch {
      hold.release()
      throw error
    }
    hold.release()
    return result
  }
}
