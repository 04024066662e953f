// SPDX-License-Identifier: Apache-2.0
//
// Holds: the granted space lock as a value that cannot be copied, and so a proof.
//
// Code that changes guarded state takes a `borrowing WriteHold`; code that relies on state takes a
// `borrowing ReadHold` or the write hold's `asRead`. The compiler refuses a change without the lock.
// A hold that ends releases. It must not outlive the space and stays on its thread.

import RangeLocks

/// What stands behind a hold.
enum HoldBacking: UInt8 {
  /// The range lock: the hold's `RangeHold`.
  case range
  /// The semaphore; of a writer also the hold's `cells`.
  case semaphore
  /// A VMA's lock word (`.perVMA` readers): the hold's `cells` is that one.
  case cell
  /// Another hold, which lives longer: this one releases nothing.
  case view
}

/// The part that read and write holds share. Whole words only: a hold is moved around, and what is stored byte by
/// byte is slow to load as a word.
struct HoldCore: ~Copyable {
  let lock: SpaceLockRef
  /// The range the operation asked for (not what the policy made of it). Of a hold over two ranges all from the
  /// first to the last address.
  var range: AddressRange
  #if RANGELAND_CHECKS
    /// Of a hold over two ranges what lies between them and is not held.
    var gap: AddressRange?
  #endif
  var rangeHold: RangeHold?
  /// `.perVMA` only: the cells that this writer has write-locked, or the one that this reader is in.
  var cells: VMACellRef?
  /// The ledger's slot, when statistics are on.
  let ledgerSlot: LedgerSlotRef?
  /// Mode, operation and backing, a byte each.
  private let tag: UInt64

  var mode: LockMode {
    // What `init` has put in.
    @inline(__always) get { LockMode(rawValue: UInt8(truncatingIfNeeded: tag)).unsafelyUnwrapped }
  }
  var operation: OperationKind {
    @inline(__always) get {
      OperationKind(rawValue: UInt8(truncatingIfNeeded: tag >> 8)).unsafelyUnwrapped
    }
  }
  var backing: HoldBacking {
    @inline(__always) get {
      HoldBacking(rawValue: UInt8(truncatingIfNeeded: tag >> 16)).unsafelyUnwrapped
    }
  }

  @inline(__always)
  init(
    _ lock: SpaceLockRef, _ range: AddressRange, _ mode: LockMode, _ operation: OperationKind,
    _ backing: HoldBacking, ledgerSlot: LedgerSlotRef?, rangeHold: consuming RangeHold? = nil,
    cell: VMACellRef? = nil
  ) {
    self.lock = lock
    self.range = range
    self.rangeHold = rangeHold
    cells = cell
    self.ledgerSlot = ledgerSlot
    tag =
      UInt64(mode.rawValue) | UInt64(operation.rawValue) << 8 | UInt64(backing.rawValue) << 16
  }

  deinit {
    if backing != .view { LockOrder.released(.space) }
    if let ledgerSlot { lock.pointee.ledger!.pointee.willRelease(ledgerSlot) }
    switch backing {
    case .range:
      // `rangeHold` releases when it is destroyed, right after this body.
      break
    case .semaphore:
      var cell = cells
      while let current = cell {
        cell = current.pointee.nextLocked
        current.pointee.endWrite()
      }
      lock.pointee.semaphore.unlock(mode)
    case .cell:
      cells.unsafelyUnwrapped.pointee.endRead()
    case .view: break
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

/// The space lock held for writing over a range, or over two.
struct WriteHold: ~Copyable {
  var core: HoldCore
  /// What is held instead of `core.rangeHold` when two ranges were locked in one step (`.ranged`).
  var both: RangeSetHold?

  @inline(__always)
  init(core: consuming HoldCore) {
    self.core = core
    both = nil
  }

  /// The range that the operation asked for.
  var range: AddressRange { core.range }

  /// Ends the hold.
  consuming func release() {}

  /// Lends the hold to code that needs one for reading.
  func withReadView(_ body: (borrowing ReadHold) -> Void) {
    var view = ReadHold(
      core: HoldCore(
        core.lock, core.range, .write, core.operation, .view, ledgerSlot: nil))
    #if RANGELAND_CHECKS
      view.core.gap = core.gap
    #endif
    body(view)
  }
}
