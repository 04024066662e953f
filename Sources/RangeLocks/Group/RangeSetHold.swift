// SPDX-License-Identifier: Apache-2.0
//
// Several ranges held together.

/// Ranges that were granted together. It cannot be copied; when it ends, all are released.
///
/// It may be sent to another thread or task and released there. Its lock has to outlive it.
public struct RangeSetHold: ~Copyable, @unchecked Sendable {
  // Sendable: as `RangeHold`.
  let group: EntryGroup
  let directory: Directory

  deinit { directory.release(group) }

  /// What is held: disjoint, ascending, each with its mode.
  public var ranges: [RangeRequest] {
    var ranges: [RangeRequest] = []
    group.visitAll { ranges.append(RangeRequest($0.range, $0.pointer.pointee.mode)) }
    return ranges
  }

  /// Ends the hold and grants the requests that waited only for it. Never waits for another request.
  public consuming func release() {}
}

extension RangeLock {
  /// Locks several ranges in one step, waiting for conflicting requests that came before: polls briefly, then
  /// sleeps. All ranges take one place in the queue, so requests for several ranges do not deadlock with each
  /// other, whatever the order of their ranges. Where ranges overlap the strongest mode counts.
  ///
  /// Everything written under conflicting holds that ended before is visible.
  ///
  /// - Precondition: there is a range.
  @available(*, noasync, message: "blocks the thread; use the asynchronous lock(overAll:)")
  public func lock(overAll requests: [RangeRequest]) -> RangeSetHold {
    precondition(!requests.isEmpty, "RangeLock: a request has at least one range")
    // Without a deadline there is always a group in the end.
    let group = RangeRequest.withPieces(of: requests) {
      directory.acquireGroup($0, deadline: .max).unsafelyUnwrapped
    }
    return RangeSetHold(group: group, directory: directory)
  }

  /// Like `lock(overAll:)`, but gives up at `deadline`, CLOCK_MONOTONIC nanoseconds; nil if it did.
  @available(*, noasync, message: "blocks the thread; use the asynchronous lock(overAll:)")
  public func lock(overAll requests: [RangeRequest], deadline: UInt64) -> RangeSetHold? {
    precondition(!requests.isEmpty, "RangeLock: a request has at least one range")
    return hold(
      RangeRequest.withPieces(of: requests) { directory.acquireGroup($0, deadline: deadline) })
  }

  /// Locks all ranges unless a conflicting request holds or waits for a key of one. Never waits.
  ///
  /// Nil also when the system has no memory for the request.
  public func tryLock(overAll requests: [RangeRequest]) -> RangeSetHold? {
    precondition(!requests.isEmpty, "RangeLock: a request has at least one range")
    return hold(RangeRequest.withPieces(of: requests) { directory.tryAcquireGroup($0) })
  }

  func hold(_ group: EntryGroup?) -> RangeSetHold? {
    guard let group else { return nil }
    return RangeSetHold(group: group, directory: directory)
  }
}
