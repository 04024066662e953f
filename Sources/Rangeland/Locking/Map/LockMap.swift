// SPDX-License-Identifier: Apache-2.0
//
// The lock map: what does the lock of an address space protect?
//
// Declared here, observed in checked builds (LockMap+Observation.swift), compared by CI.

import RangeLocks

/// The answer that Linux never wrote down: for every guarded item the lock, the mode, the range and why.
public enum LockMap {
  /// One row: an item, a lock that guards it, and the operations that use it so.
  public struct Row: Sendable {
    /// What is guarded.
    public var item: GuardedItem
    /// What guards it.
    public var lock: MapLock
    /// Whether it is held for reading or for writing.
    public var mode: LockMode
    /// Which addresses the lock is held over.
    public var range: String
    /// Why this lock in this mode is needed and is enough.
    public var reason: String
    /// The operations that hold it so.
    public var operations: [OperationKind]
  }

  /// Every combination that the rows declare.
  public static let declared: Set<Access> = {
    var result: Set<Access> = []
    for row in rows {
      for operation in row.operations {
        result.insert(
          Access(item: row.item, lock: row.lock, mode: row.mode, operation: operation))
      }
    }
    return result
  }()
}
