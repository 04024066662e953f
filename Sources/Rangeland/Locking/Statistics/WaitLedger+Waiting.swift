// SPDX-License-Identifier: Apache-2.0
//
// The contended half of the ledger: attribution and charging.

import CRangeland
import RangeLocks
import Synchronization

extension UnsafeMutablePointer where Pointee == WaitLedger {
  /// As a value: a change through `pointee.guarded` would count as one of the ledger.
  private var guarded: UnsafeMutablePointer<WaitLedger.Guarded> { pointee.guarded }

  /// The request could not be granted at once: the thread is about to wait.
  func beginWait(_ slot: LedgerSlotRef) {
    pointee.latch.lock(.innermost)
    let now = rl_monotonic_ns()
    slot.pointee.waitStart = now
    slot.pointee.lastCharge = now
    slot.pointee.trueNanoseconds = 0
    slot.pointee.falseNanoseconds = 0
    slot.pointee.unclassifiedNanoseconds = 0
    slot.pointee.intervals = 0
    // Before the look: a release that sees no waiter has freed its slot before we look.
    pointee.waiting.add(1, ordering: .sequentiallyConsistent)
    slot.pointee.now = attribution(of: slot)
    slot.pointee.firstBlocker = slot.pointee.now.blocker
    slot.pointee.nextWaiter = guarded.pointee.firstWaiter
    guarded.pointee.firstWaiter = slot
    pointee.latch.unlock(.innermost)
  }

  /// The wait is over and the request granted.
  func endWait(_ slot: LedgerSlotRef) {
    pointee.latch.lock(.innermost)
    let now = rl_monotonic_ns()
    charge(slot, until: now)
    unlink(slot)
    pointee.waiting.subtract(1, ordering: .sequentiallyConsistent)
    slot.pointee.state.store(LedgerSlot.holding, ordering: .releasing)
    if slot.pointee.isRangeKnown { settle(slot, now) }
    lookAgain(now)
    pointee.latch.unlock(.innermost)
  }

  /// The operation knows its range now; a wait that had none is classified.
  func rangeKnown(_ slot: LedgerSlotRef, _ range: AddressRange) {
    let waited = slot.pointee.waitStart != 0
    slot.pointee.start.store(range.start, ordering: .relaxed)
    slot.pointee.end.store(range.end, ordering: .relaxed)
    slot.pointee.traits.bitwiseOr(2, ordering: .releasing)
    if waited || pointee.waiting.load(ordering: .relaxed) != 0 {
      pointee.latch.lock(.innermost)
      let now = rl_monotonic_ns()
      if waited {
        classify(slot, range)
        settle(slot, slot.pointee.lastCharge)
      }
      lookAgain(now)
      pointee.latch.unlock(.innermost)
    }
  }

  /// After a release: whoever waits looks again. `willRelease` has freed the slot.
  @inline(__always)
  func didRelease(_ slot: LedgerSlotRef) {
    if slot.pointee.waitStart != 0 || pointee.waiting.load(ordering: .sequentiallyConsistent) != 0 {
      didReleaseSlow(slot)
    }
  }

  @inline(never)
  private func didReleaseSlow(_ slot: LedgerSlotRef) {
    pointee.latch.lock(.innermost)
    // A wait whose range never became known stays unclassified.
    if slot.pointee.waitStart != 0 { settle(slot, slot.pointee.lastCharge) }
    lookAgain(rl_monotonic_ns())
    pointee.latch.unlock(.innermost)
  }

  /// Charges every waiter until `now` and looks at who is ahead of it. The latch is held.
  private func lookAgain(_ now: UInt64) {
    var waiter = guarded.pointee.firstWaiter
    while let slot = waiter {
      charge(slot, until: now)
      slot.pointee.now = attribution(of: slot)
      waiter = slot.pointee.nextWaiter
    }
  }

  private func unlink(_ slot: LedgerSlotRef) {
    if guarded.pointee.firstWaiter == slot {
      guarded.pointee.firstWaiter = slot.pointee.nextWaiter
      return
    }
    var before = guarded.pointee.firstWaiter
    while let current = before {
      if current.pointee.nextWaiter == slot {
        current.pointee.nextWaiter = slot.pointee.nextWaiter
        return
      }
      before = current.pointee.nextWaiter
    }
  }

  /// Adds the stretch since the last charge to the class and the blocker that held during it.
  private func charge(_ slot: LedgerSlotRef, until now: UInt64) {
    let nanoseconds = now &- slot.pointee.lastCharge
    slot.pointee.lastCharge = now
    if !slot.pointee.isRangeKnown {
      if slot.pointee.intervals < 16 {
        slot.pointee.log[slot.pointee.intervals] = LedgerSlot.Interval(
          nanoseconds: nanoseconds, attribution: slot.pointee.now)
        slot.pointee.intervals += 1
      } else {
        add(slot, .unknown, slot.pointee.now.blocker, nanoseconds)
      }
      return
    }
    add(slot, slot.pointee.now.kind, slot.pointee.now.blocker, nanoseconds)
  }

  private func add(
    _ slot: LedgerSlotRef, _ kind: LedgerSlot.Attribution.Kind, _ blocker: UInt8,
    _ nanoseconds: UInt64
  ) {
    let cell = WaitTotals.index(slot.pointee.operation, blocker)
    guarded.pointee.totals.cells[cell].nanoseconds += nanoseconds
    switch kind {
    case .conflict:
      slot.pointee.trueNanoseconds += nanoseconds
    case .none:
      slot.pointee.falseNanoseconds += nanoseconds
      guarded.pointee.totals.cells[cell].falseNanoseconds += nanoseconds
    case .unknown:
      slot.pointee.unclassifiedNanoseconds += nanoseconds
      guarded.pointee.totals.cells[cell].unclassifiedNanoseconds += nanoseconds
    }
  }

  /// Classifies the logged stretches of a wait whose range has become known.
  private func classify(_ slot: LedgerSlotRef, _ range: AddressRange) {
    for i in 0..<slot.pointee.intervals {
      let interval = slot.pointee.log[i]
      let ahead = interval.attribution
      var kind = LedgerSlot.Attribution.Kind.none
      if ahead.kind == .unknown || ahead.ahead > 3 { kind = .unknown }
      for j in 0..<Swift.min(ahead.ahead, 3)
      where ahead.ranges[j].start < range.end && range.start < ahead.ranges[j].end {
        kind = .conflict
      }
      add(slot, kind, ahead.blocker, interval.nanoseconds)
    }
    slot.pointee.intervals = 0
  }

  /// Counts a finished wait.
  private func settle(_ slot: LedgerSlotRef, _ end: UInt64) {
    // Stretches that never got a range.
    for i in 0..<slot.pointee.intervals {
      let interval = slot.pointee.log[i]
      add(slot, .unknown, interval.attribution.blocker, interval.nanoseconds)
    }
    slot.pointee.intervals = 0
    let first = WaitTotals.index(slot.pointee.operation, slot.pointee.firstBlocker)
    guarded.pointee.totals.cells[first].waits += 1
    guarded.pointee.totals.waits += 1
    if slot.pointee.trueNanoseconds == 0 {
      if slot.pointee.unclassifiedNanoseconds > 0 {
        guarded.pointee.totals.unclassifiedWaits += 1
      } else {
        guarded.pointee.totals.falseWaits += 1
      }
    }
    guarded.pointee.totals.histogram.record(end &- slot.pointee.waitStart)
    slot.pointee.waitStart = 0
  }

  /// Who is ahead of a waiter now: the earliest that conflicts, else the earliest of those that the policy may make it
  /// wait for. The waiter's own thread is not: it waits for the word of a VMA while it holds the lock.
  private func attribution(of waiter: LedgerSlotRef) -> LedgerSlot.Attribution {
    var result = LedgerSlot.Attribution()
    let arrival = waiter.pointee.sequence.load(ordering: .relaxed)
    let known = waiter.pointee.isRangeKnown
    let wanted = waiter.pointee.ranges
    let count = Int(rl_thread_index_bound()) * WaitLedger.slotsPerThread
    let own = (waiter - pointee.slots) / WaitLedger.slotsPerThread
    var earliest = UInt64.max
    for i in 0..<count where i / WaitLedger.slotsPerThread != own {
      let other = pointee.slots + i
      let state = other.pointee.state.load(ordering: .acquiring)
      if state == LedgerSlot.free { continue }
      let sequence = other.pointee.sequence.load(ordering: .relaxed)
      if state == LedgerSlot.waiting && sequence >= arrival { continue }
      if waiter.pointee.mode == .read && other.pointee.mode == .read { continue }
      let otherKnown = other.pointee.isRangeKnown
      let ahead = other.pointee.ranges
      let operation = other.pointee.operation
      // The slot may have been reused while we read it.
      if other.pointee.state.load(ordering: .acquiring) != state
        || other.pointee.sequence.load(ordering: .relaxed) != sequence
      {
        continue
      }
      if known && otherKnown {
        if ahead.first.overlaps(wanted.first) || ahead.first.overlaps(wanted.second)
          || ahead.second.overlaps(wanted.first) || ahead.second.overlaps(wanted.second)
        {
          // A conflict counts before all that are none.
          if result.kind != .conflict || sequence < earliest {
            result.blocker = operation
            earliest = sequence
          }
          result.kind = .conflict
          continue
        }
      } else if !otherKnown {
        if result.kind != .conflict { result.kind = .unknown }
      } else {
        for span in [ahead.first, ahead.second] where span.end != 0 {
          if result.ahead < 3 { result.ranges[result.ahead] = span }
          result.ahead += 1
        }
      }
      if result.kind != .conflict && sequence < earliest {
        result.blocker = operation
        earliest = sequence
      }
    }
    return result
  }
}
