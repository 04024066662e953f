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
    while true {
      guard let entry = directory.pool.take().map(EntryRef.init) else {
        try await waitForMemory()
        continue
      }
      switch directory.ask(range, mode, entry) {
      case .granted: return RangeHold(entry: entry, directory: directory)
      case .queued:
        if await directory.suspend(entry) { return RangeHold(entry: entry, directory: directory) }
        throw CancellationError()
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
    while true {
      guard
        let group = RangeRequest.withPieces(of: requests, { directory.makeGroup($0) })
      else {
        try await waitForMemory()
        continue
      }
      switch directory.publishInDirectory(group, mayWait: true) {
      case .granted: return RangeSetHold(group: group, directory: directory)
      case .queued:
        var place = 0
        while let entry = group[place] {
          if !(await directory.suspend(entry)) {
            directory.takeBack(group, except: place)
            throw CancellationError()
          }
          place += 1
        }
        return RangeSetHold(group: group, directory: directory)
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
