// SPDX-License-Identifier: Apache-2.0
//
// One request for the space lock, as the wait ledger sees it.
//
// The owner publishes it with plain stores and one releasing store of `state`; a waiter that looks for
// what is ahead of it reads without a lock and reads `state` and `sequence` again. The waiter's own
// accounting is guarded by the ledger's latch.

import RangeLocks
import Synchronization

typealias LedgerSlotRef = UnsafeMutablePointer<LedgerSlot>

struct LedgerSlot: ~Copyable {
  static var free: UInt32 { 0 }
  static var holding: UInt32 { 1 }
  static var waiting: UInt32 { 2 }

  let state = Atomic<UInt32>(LedgerSlot.free)
  /// Mode in bit 0, "range known" in bit 1, operation from bit 8.
  let traits = Atomic<UInt32>(0)
  let start = Atomic<UInt64>(0)
  let end = Atomic<UInt64>(0)
  /// The second range of a request for two; empty = none.
  let secondStart = Atomic<UInt64>(0)
  let secondEnd = Atomic<UInt64>(0)
  /// Arrival order: a cycle stamp.
  let sequence = Atomic<UInt64>(0)

  // Everything below is guarded by the ledger's latch, and used only while the request waits.
  var nextWaiter: LedgerSlotRef?
  var waitStart: UInt64 = 0
  var lastCharge: UInt64 = 0
  var firstBlocker: UInt8 = LedgerSlot.nobody
  var now = Attribution()
  var trueNanoseconds: UInt64 = 0
  var falseNanoseconds: UInt64 = 0
  var unclassifiedNanoseconds: UInt64 = 0
  /// Intervals of a wait whose range is not known yet, to be classified when it is.
  var intervals = 0
  var log = InlineArray<16, Interval>(repeating: Interval())

  /// The blocker of a wait that nobody ahead explains: the time of a hand-over.
  static var nobody: UInt8 { 0xff }

  /// Who is ahead at an instant, and whether they conflict.
  struct Attribution {
    enum Kind { case conflict, none, unknown }
    var kind = Kind.none
    var blocker: UInt8 = LedgerSlot.nobody
    /// For a waiter without a range: the ranges ahead of it; more than fit make it unclassified.
    var ahead = 0
    var ranges = InlineArray<3, Span2>(repeating: Span2())
  }

  /// A range without `AddressRange`'s precondition.
  struct Span2 {
    var start: UInt64 = 0
    var end: UInt64 = 0

    /// Whether they have an address in common. An empty one has none.
    func overlaps(_ other: Span2) -> Bool {
      max(start, other.start) < min(end, other.end)
    }
  }

  /// A stretch of a wait during which nothing changed.
  struct Interval {
    var nanoseconds: UInt64 = 0
    var attribution = Attribution()
  }

  /// The request is for two ranges, and not for what is between them. The owner tells when it has announced it.
  borrowing func narrow(_ first: AddressRange, _ second: AddressRange) {
    start.store(first.start, ordering: .relaxed)
    end.store(first.end, ordering: .relaxed)
    secondStart.store(second.start, ordering: .relaxed)
    secondEnd.store(second.end, ordering: .relaxed)
  }

  /// The ranges that are asked for, the second empty if there is one only.
  var ranges: (first: Span2, second: Span2) {
    (
      Span2(start: start.load(ordering: .relaxed), end: end.load(ordering: .relaxed)),
      Span2(start: secondStart.load(ordering: .relaxed), end: secondEnd.load(ordering: .relaxed))
    )
  }

  var mode: LockMode { traits.load(ordering: .relaxed) & 1 == 0 ? .read : .write }
  var isRangeKnown: Bool { traits.load(ordering: .relaxed) & 2 != 0 }
  var operation: UInt8 { UInt8(truncatingIfNeeded: traits.load(ordering: .relaxed) >> 8) }

  static func traits(_ mode: LockMode, known: Bool, _ operation: OperationKind) -> UInt32 {
    (mode == .write ? 1 : 0) | (known ? 2 : 0) | UInt32(operation.rawValue) << 8
  }
}
