// SPDX-License-Identifier: Apache-2.0
//
// Holds: the granted space lock as a value that cannot be copied, and so a proof.
//
// Code that changes guarded state takes a `borrowing WriteHold`; code that relies on state takes a
// `borrowing ReadHold` or the write hold's `asRead`. The compiler refuses a change without the lock.
// A hold that ends releases. It must not outlive the space and stays on its thread.

import RangeLocks

/// What stands behind a hold.
enum HoldBacking {
  /// The range lock: the hold's `RangeHold`.
  case range
  /// The semaphore.
  case semaphore
  /// A VMA's lock word (`.perVMA` readers).
  case cell(VMACellRef)
}

/// The part that read and write holds share.
struct HoldCore: ~Copyable {
  let lock: SpaceLockRef
  /// The range the operation asked for (not what the policy made of it).
  var range: AddressRange
  let mode: LockMode
  let operation: OperationKind
  let backing: HoldBacking
  /// Cells that this writer has write-locked, `.perVMA` only.
  var lockedCells: VMACellRef?
  /// The ledger's slot, when statistics are on.
  let ledgerSlot: LedgerSlotRef?
  var rangeHold: RangeHold?

  deinit {
    LockOrder.released(.space)
    if let ledgerSlot { lock.pointee.ledger!.pointee.willRelease(ledgerSlot) }
    switch backing {
    case .range:
      // `rangeHold` releases when it is destroyed, right after this body.
      break
    case .semaphore:
      var cell = lockedCells
      while let current = cell {
        cell = current.pointee.nextLocked
        current.pointee.endWrite()
      }
      lock.pointee.semaphore.unlock(mode)
    case .cell(let cell):
      cell.pointee.endRead()
    }
    if let ledgerSlot { lock.pointee.ledger!.didRelease(ledgerSlot) }
  }
}

/// The space lock held for reading over a range.
struct ReadHold: ~Copyable {
  var core: HoldCore

  /// The range that the operation asked for.
  var range: AddressRange { core.range }

  /// Ends the hold.
  consuming func release() {}
}

/// The space lock held for writing over a range.
struct WriteHold: ~Copyable {
  var core: HoldCore

  /// The range that the operation asked for.
  var range: AddressRange { core.range }

  /// Ends the hold.
  consuming func release() {}
}
