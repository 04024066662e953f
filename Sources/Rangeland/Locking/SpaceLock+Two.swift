// SPDX-License-Identifier: Apache-2.0
//
// Taking the space lock over two ranges at once: a move needs where it comes from and where it goes.
//
// The two are one request, so two threads that swap A and B cannot each hold one and wait for the other.

import RangeLocks

extension UnsafeMutablePointer where Pointee == SpaceLock {
  /// Waits for the space lock over two ranges, in any order, excluding everybody else. Where they touch or
  /// overlap, or the policy ignores ranges, that is the lock over one.
  func write(
    _ a: AddressRange, and b: AddressRange, _ operation: OperationKind
  ) -> WriteHold {
    let low = a.start < b.start ? a : b
    let high = a.start < b.start ? b : a
    let hull = AddressRange(start: low.start, end: max(low.end, high.end))
    if low.end >= high.start { return write(hull, operation) }
    if pointee.policy != .ranged {
      var hold: WriteHold
      if let ledger = pointee.ledger {
        LockOrder.willWait(.space)
        hold = WriteHold(core: acquireCounted(hull, .write, operation, ledger, both: (low, high)))
      } else {
        hold = write(hull, operation)
      }
      #if RANGELAND_CHECKS
        hold.core.gap = AddressRange(start: low.end, end: high.start)
      #endif
      return hold
    }
    LockOrder.willWait(.space)
    var slot: LedgerSlotRef?
    var both: RangeSetHold?
    if let ledger = pointee.ledger {
      let announced = ledger.pointee.announce(low, .write, operation)
      announced.pointee.narrow(low, high)
      slot = announced
      both = pointee.tryLockRanges(low, high)
      if both == nil {
        ledger.beginWait(announced)
        both = pointee.lockRanges(low, high)
        ledger.endWait(announced)
      } else {
        ledger.pointee.granted(announced)
      }
    } else {
      both = pointee.lockRanges(low, high)
    }
    LockOrder.acquired(.space)
    var hold = WriteHold(
      core: HoldCore(self, hull, .write, operation, .range, ledgerSlot: slot))
    hold.both = both.take()
    #if RANGELAND_CHECKS
      hold.core.gap = AddressRange(start: low.end, end: high.start)
    #endif
    return hold
  }
}
