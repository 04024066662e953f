// SPDX-License-Identifier: Apache-2.0
//
// Who holds and who waits: for tests, assertions and diagnostics.
//
// Guarantee: each request that is there during the whole call is told once; requests that come and go meanwhile may
// be told or not. What is told was true at some instant of the call.
// Mechanism: takes the lock out of whole-lock mode, then walks the shards of the levels in use, one latch at a time.
// Cost: proportional to the requests and to 128 shards a level in use. Not for hot paths.

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
  }

  /// The requests that share a key with `range`, in no particular order. One for several ranges is told range by range.
  ///
  /// Others may change them at any time. Waits for latches only.
  public func requests(overlapping range: KeyRange = .all) -> [Request] {
    var found: [Request] = []
    directory.forEachRequest { entry, state in
      guard entry.range.overlaps(range) else { return }
      found.append(
        Request(range: entry.range, mode: entry.pointer.pointee.mode, state: state))
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
