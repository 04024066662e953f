// SPDX-License-Identifier: Apache-2.0
//
// Several ranges held together.

/// Ranges that were granted together. It cannot be copied; when it ends, all are released.
///
/// It may be sent to another thread or task and released there. Its lock has to outlive it.
public struct RangeSetHold: ~Copyable, @unchecked Sendable {
  // Sendable: as `RangeHold`.
  @usableFromInline let group: EntryGroup
  @usableFromInline let directory: Directory
  @usableFromInline let note: HoldNote

  @inlinable @inline(__always)
  init(group: EntryGroup, directory: Directory, _ site: CallSite) {
    self.group = group
    self.directory = directory
    note = directory.noteHold(group, site)
  }

  deinit {
    note.end()
    directory.release(group)
  }

  /// What is held: disjoint, ascending, each with its mode.
  public var ranges: [RangeRequest] {
    var ranges: [RangeRequest] = []
    group.visitAll { ranges.append(RangeRequest($0.range, $0.pointer.pointee.mode)) }
    return ranges
  }

  /// Ends the hold and grants the requests that waited only for it; wakes nobody else. Never waits for another request.
  ///
  /// What was done under the hold happened before what every later conflicting hold does.
  public consuming func release() {}

  /// Says that another thread or task may release the hold; see `RangeHold.makeTransferable()`.
  @inlinable @inline(__always)
  public borrowing func makeTransferable() { note.disown() }
}

extension RangeLock {
  /// Locks several ranges in one step, waiting for conflicting requests that came before: polls briefly, then
  /// sleeps. All ranges take one place in the queue, and none is held before all are, so requests for several ranges do not
  /// deadlock with each other, whatever the order of their ranges, nor with upgrades. Where ranges overlap the strongest
  /// mode counts.
  ///
  /// Everything written under conflicting holds that ended before is visible.
  ///
  /// - Precondition: there is a range.
  @available(*, noasync, message: "blocks the thread; use the asynchronous lock(overAll:)")
  @inlinable @inline(__always)
  public func lock(
    overAll requests: [RangeRequest], fileID: StaticString = #fileID, line: UInt = #line
  ) -> RangeSetHold {
    let site = CallSite(fileID, line)
    // Without a deadline there is always a group in the end.
    let group = acquireBlocking(overAll: requests, deadline: .max, site).unsafelyUnwrapped
    return RangeSetHold(group: group, directory: directory, site)
  }

  /// Like `lock(overAll:)`, but gives up at `deadline`, CLOCK_MONOTONIC time in nanoseconds; one that has passed does not
  /// wait.
  ///
  /// - Returns: nil when the deadline passed first; then no range is held or waited for.
  /// - Precondition: there is a range.
  @available(*, noasync, message: "blocks the thread; use the asynchronous lock(overAll:)")
  @inlinable @inline(__always)
  public func lock(
    overAll requests: [RangeRequest], deadline: UInt64, fileID: StaticString = #fileID,
    line: UInt = #line
  ) -> RangeSetHold? {
    let site = CallSite(fileID, line)
    guard let group = acquireBlocking(overAll: requests, deadline: deadline, site) else {
      return nil
    }
    return RangeSetHold(group: group, directory: directory, site)
  }

  /// Locks all ranges unless a conflicting request holds or waits for a key of one. Never waits, and publishes nothing when it
  /// fails. Order and memory effects are those of `RangeLock.tryLock(over:_:)`.
  ///
  /// Nil also when the system has no memory for the request.
  ///
  /// - Precondition: there is a range.
  @inlinable @inline(__always)
  public func tryLock(
    overAll requests: [RangeRequest], fileID: StaticString = #fileID, line: UInt = #line
  ) -> RangeSetHold? {
    guard let group = tryAcquire(overAll: requests) else { return nil }
    return RangeSetHold(group: group, directory: directory, CallSite(fileID, line))
  }

  @usableFromInline
  func acquireBlocking(
    overAll requests: [RangeRequest], deadline: UInt64, _ site: CallSite
  ) -> EntryGroup? {
    precondition(!requests.isEmpty, "RangeLock: a request has at least one range")
    return RangeRequest.withPieces(of: requests) {
      directory.acquireGroup($0, deadline: deadline, site)
    }
  }

  @usableFromInline
  func tryAcquire(overAll requests: [RangeRequest]) -> EntryGroup? {
    precondition(!requests.isEmpty, "RangeLock: a request has at least one range")
    return RangeRequest.withPieces(of: requests) { directory.tryAcquireGroup($0) }
  }
}
