// SPDX-License-Identifier: Apache-2.0
//
// What checked builds see: every guarded access is checked against the hold and remembered.
//
// An access that no row declares traps at once, and so does one under an inner lock that is not held.
//
// Mechanism: one bit for each (item, lock, mode, operation), set at the access. When the process ends
//   and RANGELAND_LOCKMAP_DIR names a folder, the set is written there, one line a bit.
//   `rangeland lockmap --check DIR` compares the union with the declared map.
// Cost: nothing outside checked builds.

import CRangeland
import RangeLocks
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

extension LockMap {
  /// A combination that the lock map declares or a test process observed.
  public struct Access: Hashable, Sendable {
    public var item: GuardedItem
    public var lock: MapLock
    public var mode: LockMode
    public var operation: OperationKind

    var bit: Int {
      ((Int(item.rawValue) * 8 + Int(lock.rawValue)) * 2 + (mode == .write ? 1 : 0)) * 32
        + Int(operation.rawValue)
    }

    /// `item lock mode operation`, the line of an observation file.
    public var line: String {
      "\(item.id)\t\(lock)\t\(mode == .write ? "write" : "read")\t\(operation.name)"
    }
  }

  /// Notes an access that the space lock guards, and traps when the hold does not cover it.
  @inline(__always)
  static func observe(_ item: GuardedItem, _ hold: borrowing WriteHold, _ touched: AddressRange) {
    #if RANGELAND_CHECKS
      check(item, hold.core, touched)
    #endif
  }

  /// Notes an access that relies on the space lock held for reading.
  @inline(__always)
  static func observe(_ item: GuardedItem, _ hold: borrowing ReadHold, _ touched: AddressRange) {
    #if RANGELAND_CHECKS
      check(item, hold.core, touched)
    #endif
  }

  /// Notes an access under an inner lock by the operation that the thread runs now, and traps when the thread
  /// does not hold a lock of that kind. Tests of single parts run no operation: they are not noted.
  @inline(__always)
  static func observe(_ item: GuardedItem, _ lock: MapLock, _ mode: LockMode) {
    #if RANGELAND_CHECKS
      guard let operation = currentOperation else { return }
      if let rank = lock.rank {
        precondition(
          LockOrder.isHeld(rank),
          "lock map: \(item.id) touched by \(operation.name) without its \(lock.name)")
      }
      note(Access(item: item, lock: lock, mode: mode, operation: operation))
    #endif
  }

  #if RANGELAND_CHECKS
    private static func check(
      _ item: GuardedItem, _ hold: borrowing HoldCore, _ touched: AddressRange
    ) {
      precondition(
        hold.range.contains(touched),
        "lock map: \(item.id) touched at \(touched) under a hold of \(hold.range) by "
          + hold.operation.name)
      if let gap = hold.gap {
        precondition(
          touched.end <= gap.start || touched.start >= gap.end,
          "lock map: \(item.id) touched at \(touched) between the ranges of a hold, by "
            + hold.operation.name)
      }
      note(Access(item: item, lock: .space, mode: hold.mode, operation: hold.operation))
    }

    /// At most 32 items x 8 locks x 2 modes x 32 operations, in words.
    // Atomics: safe to share.
    nonisolated(unsafe) private static let bits: UnsafeMutablePointer<Atomic<UInt64>> = {
      let words = 32 * 8 * 2 * 32 / 64
      let memory = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: words)
      for i in 0..<words { (memory + i).initialize(to: Atomic(0)) }
      atexit { LockMap.writeObservations() }
      return memory
    }()

    private static func note(_ access: Access) {
      let bit = access.bit
      let mask = (1 as UInt64) << UInt64(bit % 64)
      if bits[bit / 64].load(ordering: .relaxed) & mask == 0 {
        precondition(
          declared.contains(access),
          "lock map: no row declares \(access.line) (Sources/Rangeland/Locking/Map)")
        bits[bit / 64].bitwiseOr(mask, ordering: .relaxed)
      }
    }

    /// The operation that the calling thread runs: thread-local word 1.
    private static var currentOperation: OperationKind? {
      let word = rl_tls_get(1)
      return word == 0 ? nil : OperationKind(rawValue: UInt8(word - 1))
    }

    private static func writeObservations() {
      guard let folder = getenv("RANGELAND_LOCKMAP_DIR") else { return }
      let path = String(cString: folder) + "/\(getpid()).observed"
      guard let file = fopen(path, "w") else { return }
      for access in observed() { fputs(access.line + "\n", file) }
      fclose(file)
    }
  #endif

  /// What this process has observed so far; empty outside checked builds.
  public static func observed() -> [Access] {
    var result: [Access] = []
    #if RANGELAND_CHECKS
      for item in GuardedItem.allCases {
        for lock in MapLock.allCases {
          for mode in [LockMode.read, .write] {
            for operation in OperationKind.allCases {
              let access = Access(item: item, lock: lock, mode: mode, operation: operation)
              let word = bits[access.bit / 64].load(ordering: .relaxed)
              if word >> UInt64(access.bit % 64) & 1 != 0 { result.append(access) }
            }
          }
        }
      }
    #endif
    return result
  }

  /// Tells the checkers which operation the thread runs; returns what it ran before.
  @inline(__always)
  static func enter(_ operation: OperationKind) -> UInt64 {
    #if RANGELAND_CHECKS
      let before = rl_tls_get(1)
      rl_tls_set(1, UInt64(operation.rawValue) + 1)
      return before
    #else
      return 0
    #endif
  }

  /// Ends what `enter` began.
  @inline(__always)
  static func leave(_ before: UInt64) {
    #if RANGELAND_CHECKS
      rl_tls_set(1, before)
    #endif
  }
}
