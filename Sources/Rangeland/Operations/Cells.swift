// SPDX-License-Identifier: Apache-2.0
//
// The lock words of VMAs under `.perVMA`: nothing under the other policies.

import RangeLocks

extension AddressSpace {
  /// Write-locks the words of the VMAs that a change of `range` replaces, merge neighbours included, and
  /// waits for their readers. The semaphore is held, so the VMAs stay (but for identities, which keep
  /// their word). The thread is pinned. Linux: `vma_start_write` on prev, the VMA and next.
  @inline(__always)
  func lockCells(_ range: AddressRange, _ hold: inout WriteHold) {
    if policy == .perVMA { lockCellsSlow(range, &hold) }
  }

  @inline(never)
  private func lockCellsSlow(_ range: AddressRange, _ hold: inout WriteHold) {
    var next = range.start == 0 ? 0 : range.start - 1
    // `<=`: a VMA that begins where the range ends may be merged.
    while let record = layout.pointee.findNext(next), record.pointee.start <= range.end {
      if let cell = record.pointee.cell { hold.lockCell(cell) }
      next = record.pointee.end
    }
  }

  /// Enters the word of the one VMA that covers `range` as a reader (`.perVMA`); `nil` = take the
  /// semaphore. The thread is pinned. Linux: `lock_vma_under_rcu`.
  @inline(__always)
  func readCell(
    covering range: AddressRange, _ operation: OperationKind, _ context: Context
  ) -> ReadHold? {
    if policy != .perVMA { return nil }
    guard let record = layout.pointee.lookUp(range.start, context), record.pointee.end >= range.end,
      let cell = record.pointee.cell
    else { return nil }
    parkBeforeWord.pass(operation)
    guard let hold = lock.readCell(cell, range, operation) else { return nil }
    // The record may have been replaced before we had its word. Successors that share the word differ
    // in their identity only.
    if record.isInTree { return hold }
    guard let current = layout.pointee.find(range.start), current.pointee.cell == cell,
      current.pointee.end >= range.end
    else {
      hold.release()
      return nil
    }
    return hold
  }
}
