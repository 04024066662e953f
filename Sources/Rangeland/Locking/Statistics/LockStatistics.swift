// SPDX-License-Identifier: Apache-2.0
//
// What a space's lock has been through, as a value.

import CRangeland
import RangeLocks
import Synchronization

/// Waits for the lock of an address space, and for VMA lock words under `.perVMA`, since it was made.
public struct LockStatistics: Sendable {
  /// Requests for the lock by operation.
  public var requests: [OperationKind: UInt64] = [:]
  /// Requests that had to wait.
  public var waits: UInt64 = 0
  /// Waits that were false during their whole length: no holder and no earlier waiter ahead overlapped
  /// them in an incompatible mode at any instant.
  public var falseWaits: UInt64 = 0
  /// Waits that no instant is known to have been true of, and some instant could not be classified:
  /// somebody ahead had not chosen its range yet.
  public var unclassifiedWaits: UInt64 = 0
  /// Time waited, in seconds, summed over threads.
  public var waitSeconds: Double = 0
  /// Time waited at instants when the wait was false.
  public var falseWaitSeconds: Double = 0
  /// Half of the waits were shorter, within 1/16.
  public var waitP50Nanoseconds: UInt64 = 0
  /// 99 in 100 waits were shorter, within 1/16.
  public var waitP99Nanoseconds: UInt64 = 0
  /// The longest wait.
  public var waitMaxNanoseconds: UInt64 = 0
  /// Who waited for whom.
  public var blocked: [Blocked] = []

  /// Those of a lock that nobody has asked for.
  public init() {}

  /// The waits of one operation behind another.
  public struct Blocked: Sendable {
    /// The operation that waited.
    public var operation: OperationKind
    /// The operation ahead; `nil` = nobody: the time between a release and the waiter's return.
    public var blocker: OperationKind?
    /// Waits that began behind `blocker`.
    public var waits: UInt64
    /// Time behind `blocker`, in seconds.
    public var waitSeconds: Double
    /// The part of it at instants when the wait was false.
    public var falseWaitSeconds: Double

    /// The waits of `operation` behind `blocker`.
    public init(
      operation: OperationKind, blocker: OperationKind?, waits: UInt64, waitSeconds: Double,
      falseWaitSeconds: Double
    ) {
      self.operation = operation
      self.blocker = blocker
      self.waits = waits
      self.waitSeconds = waitSeconds
      self.falseWaitSeconds = falseWaitSeconds
    }
  }
}

extension UnsafeMutablePointer where Pointee == WaitLedger {
  /// The sums so far.
  func statistics() -> LockStatistics {
    var result = LockStatistics()
    for operation in OperationKind.allCases {
      var count: UInt64 = 0
      for thread in 0..<Int(rl_thread_index_bound()) {
        count += pointee.requests[
          thread * WaitLedger.operationSlots + Int(operation.rawValue)
        ].load(ordering: .relaxed)
      }
      if count > 0 { result.requests[operation] = count }
    }
    pointee.latch.lock(.innermost)
    let totals = pointee.guarded.pointee.totals
    pointee.latch.unlock(.innermost)
    result.waits = totals.waits
    result.falseWaits = totals.falseWaits
    result.unclassifiedWaits = totals.unclassifiedWaits
    result.waitP50Nanoseconds = totals.histogram.quantile(0.5)
    result.waitP99Nanoseconds = totals.histogram.quantile(0.99)
    result.waitMaxNanoseconds = totals.histogram.maximum
    for operation in OperationKind.allCases {
      for blocker in OperationKind.allCases.map(Optional.some) + [nil] {
        let cell = totals.cells[
          WaitTotals.index(operation.rawValue, blocker?.rawValue ?? LedgerSlot.nobody)]
        if cell.waits == 0 && cell.nanoseconds == 0 { continue }
        result.waitSeconds += Double(cell.nanoseconds) / 1e9
        result.falseWaitSeconds += Double(cell.falseNanoseconds) / 1e9
        result.blocked.append(
          LockStatistics.Blocked(
            operation: operation, blocker: blocker, waits: cell.waits,
            waitSeconds: Double(cell.nanoseconds) / 1e9,
            falseWaitSeconds: Double(cell.falseNanoseconds) / 1e9))
      }
    }
    return result
  }
}
