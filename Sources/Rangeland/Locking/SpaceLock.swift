// SPDX-License-Identifier: Apache-2.0
//
// The space lock: the one wrapper through which every operation takes the lock of its space.
//
// Guarantee: a hold excludes every other hold whose range overlaps in an incompatible mode, whatever
//   the policy; under all policies but `.ranged` it excludes more.
// Mechanism: a switch over the policy; `.perVMA` adds a word in each VMA record (VMALockCell).
// Cost: one branch on the policy and one on the statistics, then the lock's own.
// Source: Linux "mmap locking API" (Lespinasse, 5.8); every call here has a range and returns a hold.
//
// This folder is the only one that may name RangeLock or ReadWriteSemaphore (checked by .ci/lint).

import RangeLocks

/// The lock of one address space. It lives in the space's storage and does not move.
struct SpaceLock: ~Copyable {
  let policy: LockPolicy
  /// Policies `.ranged` and `.wholeRange`. One reference, counted by hand: a counted one would be retained and
  /// released by every operation, and two threads in disjoint ranges would write the line of the count.
  private let ranges: Unmanaged<RangeLock>
  /// Policies `.semaphore` and `.perVMA`.
  let semaphore = ReadWriteSemaphore()
  /// Present when statistics are on. Immutable, so that a predicted branch is all it costs when off.
  let ledger: UnsafeMutablePointer<WaitLedger>?

  init(policy: LockPolicy, statistics: Bool) {
    self.policy = policy
    ranges = Unmanaged.passRetained(RangeLock())
    ledger = statistics ? WaitLedger.make() : nil
  }

  deinit {
    ranges.release()
    if let ledger { WaitLedger.destroy(ledger) }
  }

  /// Requests that have their place in the queue: whoever polls before has none. For tests.
  borrowing func queuedRequests() -> Int {
    switch policy {
    case .semaphore, .perVMA: semaphore.queuedCount()
    case .ranged, .wholeRange:
      // One for two ranges is told twice where both are taken, and is one.
      ranges._withUnsafeGuaranteedRef {
        Set($0.requests().lazy.filter { $0.state == .waiting }.map(\.thread)).count
      }
    }
  }

  /// The keys that a request for `range` locks under this policy.
  @inline(__always)
  borrowing func keys(_ range: AddressRange) -> KeyRange {
    policy == .ranged
      ? KeyRange(first: range.start, last: range.end - 1) : KeyRange(first: 0, last: .max)
  }

  /// Waits for the range lock over the keys of `range`. Never `nil`.
  @inline(__always)
  borrowing func lockRange(_ range: AddressRange, _ mode: LockMode) -> RangeHold? {
    let keys = keys(range)
    var hold: RangeHold?
    ranges._withUnsafeGuaranteedRef { hold = $0.lock(over: keys, mode) }
    return hold
  }

  /// Waits for the range lock over the keys of two ranges that do not touch, in one step: whoever asks for the
  /// same two, in whatever order, does not deadlock. Policy `.ranged`.
  borrowing func lockRanges(_ a: AddressRange, _ b: AddressRange) -> RangeSetHold {
    assert(policy == .ranged)
    var hold: RangeSetHold?
    ranges._withUnsafeGuaranteedRef {
      hold = $0.lock(overAll: [RangeRequest(keys(a), .write), RangeRequest(keys(b), .write)])
    }
    return hold.take()!
  }

  /// Takes the range lock over the keys of two ranges if nobody ahead conflicts.
  borrowing func tryLockRanges(_ a: AddressRange, _ b: AddressRange) -> RangeSetHold? {
    var hold: RangeSetHold?
    ranges._withUnsafeGuaranteedRef {
      hold = $0.tryLock(overAll: [RangeRequest(keys(a), .write), RangeRequest(keys(b), .write)])
    }
    return hold.take()
  }

  /// Takes the range lock over the keys of `range` if nobody ahead conflicts.
  @inline(__always)
  borrowing func tryLockRange(_ range: AddressRange, _ mode: LockMode) -> RangeHold? {
    let keys = keys(range)
    var hold: RangeHold?
    ranges._withUnsafeGuaranteedRef { hold = $0.tryLock(over: keys, mode) }
    return hold
  }
}

typealias SpaceLockRef = UnsafeMutablePointer<SpaceLock>
