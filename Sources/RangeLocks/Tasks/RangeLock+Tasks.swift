// SPDX-License-Identifier: Apache-2.0
//
// Locking in tasks.
//
// How a task waits is in Directory+Suspend.swift and RangeLock+Suspending.swift.

extension RangeLock {
  /// Locks `range`, suspending the task while conflicting requests that came before hold or wait. Never blocks the
  /// thread, beyond the short latches.
  ///
  /// Everything written under conflicting holds that ended before is visible. The hold may be released by any
  /// task or thread.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before the grant: the request then stops nobody. A
  ///   free range is granted even to a cancelled task.
  @inlinable @inline(__always)
  public func lock(
    over range: KeyRange, _ mode: LockMode, fileID: StaticString = #fileID, line: UInt = #line
  ) async throws(CancellationError) -> RangeHold {
    let site = CallSite(fileID, line)
    // Without a deadline there is always a hold in the end.
    let entry = try await acquire(range, mode, deadline: .max, site).unsafelyUnwrapped
    return RangeHold(entry: entry, directory: directory, site)
  }

  /// The same, but gives up at `deadline`, CLOCK_MONOTONIC time in nanoseconds; one that has passed does not wait.
  ///
  /// - Returns: nil when the deadline passed first. A request that gave up stops nobody.
  /// - Throws: `CancellationError` when the task is cancelled before the grant.
  @inlinable @inline(__always)
  public func lock(
    over range: KeyRange, _ mode: LockMode, deadline: UInt64, fileID: StaticString = #fileID,
    line: UInt = #line
  ) async throws(CancellationError) -> RangeHold? {
    let site = CallSite(fileID, line)
    guard let entry = try await acquire(range, mode, deadline: deadline, site) else { return nil }
    return RangeHold(entry: entry, directory: directory, site)
  }

  /// Locks several ranges in one step, suspending the task; see the blocking `lock(overAll:)`.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before the grant.
  /// - Precondition: there is a range.
  @inlinable @inline(__always)
  public func lock(
    overAll requests: [RangeRequest], fileID: StaticString = #fileID, line: UInt = #line
  ) async throws(CancellationError) -> RangeSetHold {
    let site = CallSite(fileID, line)
    // Without a deadline there is always a group in the end.
    let group = try await acquire(overAll: requests, deadline: .max, site).unsafelyUnwrapped
    return RangeSetHold(group: group, directory: directory, site)
  }

  /// The same, but gives up at `deadline`, CLOCK_MONOTONIC time in nanoseconds; one that has passed does not wait.
  ///
  /// - Returns: nil when the deadline passed first; then no range is held or waited for.
  /// - Throws: `CancellationError` when the task is cancelled before the grant.
  /// - Precondition: there is a range.
  @inlinable @inline(__always)
  public func lock(
    overAll requests: [RangeRequest], deadline: UInt64, fileID: StaticString = #fileID,
    line: UInt = #line
  ) async throws(CancellationError) -> RangeSetHold? {
    let site = CallSite(fileID, line)
    guard let group = try await acquire(overAll: requests, deadline: deadline, site) else {
      return nil
    }
    return RangeSetHold(group: group, directory: directory, site)
  }

  /// Runs `body` while `range` is held in `mode`. Suspends like `lock(over:_:)`.
  ///
  /// - Throws: `CancellationError`, or what `body` throws.
  @inlinable
  public func withLock<Result>(
    over range: KeyRange, _ mode: LockMode, fileID: StaticString = #fileID, line: UInt = #line,
    _ body: () async throws -> Result
  ) async throws -> Result {
    let hold: RangeHold = try await lock(over: range, mode, fileID: fileID, line: line)
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
