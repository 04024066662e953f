// SPDX-License-Identifier: Apache-2.0
//
// Reading and changing the limits of a space.
//
// Source: Linux kernel/sys.c `do_prlimit`, kernel/sysctl.c.

import Synchronization

extension AddressSpace {
  /// The limits, which may be changed at any time and to less than is used: what is there stays, and what would
  /// need more is refused until it fits. An operation that runs meanwhile sees the old or the new ones.
  ///
  /// Takes no lock of the space.
  ///
  /// - Precondition: `residentMemory` is set only in a space that was made with it.
  public var limits: Limits {
    get { settings.withLock { $0 } }
    set {
      let before = LockMap.enter(.configure)
      defer { LockMap.leave(before) }
      precondition(
        newValue.residentMemory == nil || counters.countsResident,
        "AddressSpace.limits: residentMemory can be set only in a space that was made with it")
      settings.withLock {
        $0 = newValue
        func pages(_ bytes: UInt64?) -> Int64 {
          bytes.map { Int64($0 / Address.pageSize) } ?? SpaceCounters.unlimited
        }
        LockMap.observe(.accounting, .credit, .write)
        counters.setLimit(.totalVM, pages(newValue.addressSpace))
        counters.setLimit(.dataVM, pages(newValue.data))
        let canLock = newValue.canLockBeyondLimit
        counters.setLimit(
          .lockedVM, canLock ? SpaceCounters.unlimited : pages(newValue.lockedMemory))
        mayLock.store(canLock || newValue.lockedMemory != 0, ordering: .relaxed)
        canLockBeyondLimit.store(canLock, ordering: .relaxed)
        // One more than the limit is reached: `map` looks before, not after.
        counters.setLimit(
          .mapCount,
          newValue.mappingCount.map { min(Int64(max(0, $0)), SpaceCounters.unlimited - 1) + 1 }
            ?? SpaceCounters.unlimited)
        var promised: UInt64?
        var single = UInt64.max
        switch newValue.overcommit {
        case .always: break
        case .heuristic(let memory): single = memory / Address.pageSize
        // Linux `__vm_enough_memory`: below the limit, not at it.
        case .strict(let limit): promised = limit - min(limit, Address.pageSize)
        }
        counters.setLimit(.committed, pages(promised))
        counters.setLimit(.resident, pages(newValue.residentMemory))
        largestPromise.store(single, ordering: .relaxed)
        heapLimit.store(newValue.data ?? .max, ordering: .relaxed)
        stackLimit.store(newValue.stack ?? .max, ordering: .relaxed)
        isLimited.store(
          counters.hasLimits || single != .max, ordering: .relaxed)
      }
    }
  }
}
