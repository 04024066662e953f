// SPDX-License-Identifier: Apache-2.0
//
// Who holds and who waits: for tests, assertions and diagnostics.
//
// Guarantee: each request that is there during the whole call is told once; requests that come and go meanwhile may
// be told or not. What is told was true at some instant of the call.
// Mechanism: takes the lock out of whole-lock mode, then walks the shards of the levels in use, one latch at a time.
// Cost: proportional to the requests and to 128 shards a level in use. Not for hot paths.

import CRangeland

extension RangeLock {
  /// A request as it was seen.
  public struct Request: Sendable, Hashable {
    /// What has become of a request.
    public enum State: Sendable, Hashable {
      /// It was granted.
      case holding
      /// It waits behind conflicting requests that came before.
      case waiting
      /// It was granted for reading, and waits to become a writer (`RangeHold.upgrade`).
      case upgrading
    }

    /// Its keys.
    public var range: KeyRange
    /// The mode it holds or waits for.
    public var mode: LockMode
    public var state: State
    /// Who asked: the number of the thread, as `RangeLock.currentThread` tells it, also where a task asked, on whichever
    /// thread it ran. Nil for a reader of a range that many read, which is counted and no more. Numbers of threads that
    /// have ended are used again.
    public var thread: Int?
    /// Since when it holds, or waits if it waits: CLOCK_MONOTONIC in nanoseconds. Nil unless the request began while
    /// `setNotesTimes(true)` was in force, since otherwise no request looks at a clock, and for a task that had to wait.
    public var since: UInt64?

    init(
      range: KeyRange, mode: LockMode, state: State, thread: Int? = nil, since: UInt64? = nil
    ) {
      self.range = range
      self.mode = mode
      self.state = state
      self.thread = thread
      self.since = since
    }
  }

  /// The number that `Request.thread` tells for requests of the calling thread.
  public static var currentThread: Int { Int(rl_thread_index()) }

  /// The requests that share a key with `range`, in no particular order. One for several ranges is told range by range.
  ///
  /// Others may change them at any time. Waits for latches only.
  public func requests(overlapping range: KeyRange = .all) -> [Request] {
    var found: [Request] = []
    directory.forEachRequest { entry, state, count in
      guard entry.range.overlaps(range) else { return }
      var request = Request(range: entry.range, mode: entry.pointer.pointee.mode, state: state)
      let word = entry.pointer.pointee.state.load(ordering: .relaxed)
      if word & Entry.standing == 0 {
        request.thread = Int(entry.pointer.pointee.thread & ~Entry.sinceBit) - 1
        if entry.hasSince, word & Entry.suspended == 0 { request.since = entry.since }
      }
      for _ in 0..<count { found.append(request) }
    }
    return found
  }

  /// Whether one hold covers all of `range` in `mode` or a stronger one, whoever has it.
  public func isHeld(over range: KeyRange, _ mode: LockMode) -> Bool {
    requests(overlapping: range).contains {
      $0.state != .waiting && $0.range.contains(range) && $0.mode.rawValue >= mode.rawValue
    }
  }

  /// Traps unless `isHeld(over:_:)`. Does nothing where assertions are off (`-O`).
  ///
  /// For code that relies on its caller's hold and does not get it as a parameter.
  public func assertHeld(
    over range: KeyRange, _ mode: LockMode, file: StaticString = #file, line: UInt = #line
  ) {
    assert(
      isHeld(over: range, mode), "RangeLock: \(range) is not held for \(mode)", file: file,
      line: line)
  }
}
