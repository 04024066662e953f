// SPDX-License-Identifier: Apache-2.0
//
// Taking the space lock: each call has a range, a mode and an operation, and returns a hold.
//
// Source: Linux include/linux/mmap_lock.h, the wrappers that replaced direct use of mmap_sem in 5.8.

import RangeLocks

extension UnsafeMutablePointer where Pointee == SpaceLock {
  /// Waits for the space lock over `range`, shared with other readers.
  @inline(__always)
  func read(_ range: AddressRange, _ operation: OperationKind) -> ReadHold {
    ReadHold(core: acquire(range, .read, operation))
  }

  /// Waits for the space lock over `range`, excluding everybody else.
  @inline(__always)
  func write(_ range: AddressRange, _ operation: OperationKind) -> WriteHold {
    WriteHold(core: acquire(range, .write, operation))
  }

  /// Takes the space lock over `range` for writing if nobody ahead conflicts. Never waits, so that it
  /// may be called under a leaf latch.
  @inline(__always)
  func tryWrite(_ range: AddressRange, _ operation: OperationKind) -> WriteHold? {
    guard let core = tryAcquire(range, .write, operation) else { return nil }
    return WriteHold(core: core)
  }

  /// Takes the space lock over `range` for reading if nobody ahead conflicts. Never waits.
  func tryRead(_ range: AddressRange, _ operation: OperationKind) -> ReadHold? {
    guard let core = tryAcquire(range, .read, operation) else { return nil }
    return ReadHold(core: core)
  }

  /// Takes the lock word of a VMA for reading a page of it (`.perVMA`). Never waits; `nil` = a writer
  /// is there, and the caller falls back on `read`. The caller is pinned and checks afterwards that the
  /// record is still attached.
  @inline(__always)
  func readCell(
    _ cell: VMACellRef, _ range: AddressRange, _ operation: OperationKind
  ) -> ReadHold? {
    guard cell.pointee.tryRead() else { return nil }
    LockOrder.acquired(.space)
    var slot: LedgerSlotRef?
    if let ledger = pointee.ledger {
      slot = ledger.pointee.announce(range, .read, operation)
      ledger.pointee.granted(slot!)
    }
    return ReadHold(
      core: HoldCore(self, range, .read, operation, .cell, ledgerSlot: slot, cell: cell))
  }

  /// Waits for the whole lock before the operation knows its range: a placement under a policy that
  /// ignores ranges. The operation calls `WriteHold.rangeKnown` when it has chosen.
  ///
  /// - Precondition: the policy is not `.ranged`.
  @inline(__always)
  func writeUnplaced(_ operation: OperationKind) -> WriteHold {
    assert(pointee.policy != .ranged)
    return WriteHold(core: acquire(nil, .write, operation))
  }

  @inline(__always)
  private func acquire(
    _ range: AddressRange?, _ mode: LockMode, _ operation: OperationKind
  ) -> HoldCore {
    LockOrder.willWait(.space)
    if let ledger = pointee.ledger { return acquireCounted(range, mode, operation, ledger) }
    let whole = range ?? .wholeSpace
    var hold: RangeHold?
    let backing: HoldBacking
    switch pointee.policy {
    case .ranged, .wholeRange:
      hold = pointee.lockRange(whole, mode)
      backing = .range
    case .semaphore, .perVMA:
      pointee.semaphore.lock(mode)
      backing = .semaphore
    }
    LockOrder.acquired(.space)
    return HoldCore(self, whole, mode, operation, backing, ledgerSlot: nil, rangeHold: hold)
  }

  /// The same with statistics: a try first, so that only real waits are counted.
  ///
  /// - Parameter both: of a request for two ranges these, of which `range` is the hull.
  @inline(never)
  func acquireCounted(
    _ range: AddressRange?, _ mode: LockMode, _ operation: OperationKind,
    _ ledger: UnsafeMutablePointer<WaitLedger>, both: (AddressRange, AddressRange)? = nil
  ) -> HoldCore {
    let whole = range ?? .wholeSpace
    let slot = ledger.pointee.announce(range, mode, operation)
    if let both { slot.pointee.narrow(both.0, both.1) }
    var hold: RangeHold?
    let backing: HoldBacking
    switch pointee.policy {
    case .ranged, .wholeRange:
      backing = .range
      if let got = pointee.tryLockRange(whole, mode) {
        hold = consume got
        ledger.pointee.granted(slot)
      } else {
        ledger.beginWait(slot)
        hold = pointee.lockRange(whole, mode)
        ledger.endWait(slot)
      }
    case .semaphore, .perVMA:
      backing = .semaphore
      if pointee.semaphore.tryLock(mode) {
        ledger.pointee.granted(slot)
      } else {
        ledger.beginWait(slot)
        pointee.semaphore.lock(mode)
        ledger.endWait(slot)
      }
    }
    LockOrder.acquired(.space)
    return HoldCore(self, whole, mode, operation, backing, ledgerSlot: slot, rangeHold: hold)
  }

  @inline(__always)
  private func tryAcquire(
    _ range: AddressRange, _ mode: LockMode, _ operation: OperationKind
  ) -> HoldCore? {
    var hold: RangeHold?
    let backing: HoldBacking
    let slot = pointee.ledger?.pointee.announce(range, mode, operation)
    switch pointee.policy {
    case .ranged, .wholeRange:
      backing = .range
      hold = pointee.tryLockRange(range, mode)
      if hold == nil {
        if let slot { pointee.ledger!.pointee.abandoned(slot) }
        return nil
      }
    case .semaphore, .perVMA:
      backing = .semaphore
      if !pointee.semaphore.tryLock(mode) {
        if let slot { pointee.ledger!.pointee.abandoned(slot) }
        return nil
      }
    }
    if let slot { pointee.ledger!.pointee.granted(slot) }
    LockOrder.acquired(.space)
    return HoldCore(self, range, mode, operation, backing, ledgerSlot: slot, rangeHold: hold)
  }
}

extension WriteHold {
  /// The operation has chosen its range: the statistics classify the wait, and the hold proves it.
  mutating func rangeKnown(_ range: AddressRange) {
    if let slot = core.ledgerSlot { core.lock.pointee.ledger!.rangeKnown(slot, range) }
    core.range = range
  }

  /// Write-locks the lock word of a VMA that the operation changes or merges with, waiting for the
  /// readers in it (`.perVMA`). Once for each word; released with the hold.
  /// Linux: `vma_start_write`.
  mutating func lockCell(_ cell: VMACellRef) {
    if cell.pointee.isWriteLocked { return }
    if let ledger = core.lock.pointee.ledger {
      // A wait of its own: the semaphore is held already.
      if cell.pointee.readers != 0 {
        let slot = ledger.pointee.announce(core.range, .write, core.operation)
        if let asked = core.ledgerSlot?.pointee.ranges, asked.second.end != 0 {
          slot.pointee.narrow(
            AddressRange(start: asked.first.start, end: asked.first.end),
            AddressRange(start: asked.second.start, end: asked.second.end))
        }
        ledger.beginWait(slot)
        _ = cell.pointee.startWrite()
        ledger.endWait(slot)
        ledger.pointee.willRelease(slot)
        ledger.didRelease(slot)
      } else {
        _ = cell.pointee.startWrite()
      }
    } else {
      _ = cell.pointee.startWrite()
    }
    adopt(cell)
  }

  /// Takes over a cell that was made write-locked for a record about to be published.
  mutating func adopt(_ cell: VMACellRef) {
    cell.pointee.nextLocked = core.cells
    core.cells = cell
  }
}
