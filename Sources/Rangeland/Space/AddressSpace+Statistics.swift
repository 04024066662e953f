// SPDX-License-Identifier: Apache-2.0
//
// Sizes and lock statistics of a space.

import Synchronization

extension AddressSpace {
  /// Sizes in pages, summed over the threads' credit. Exact while no operation runs. Takes no lock.
  public var usage: SpaceUsage {
    SpaceUsage(
      mappings: Int(counters.value(.mapCount)), virtualPages: Int(counters.value(.totalVM)),
      dataPages: Int(counters.value(.dataVM)), executablePages: Int(counters.value(.execVM)),
      lockedPages: Int(counters.value(.lockedVM)),
      promisedPages: Int(counters.value(.committed)),
      stackPages: Int(counters.value(.stackVM)),
      residentAnonymousPages: Int(counters.value(.rssAnonymous)),
      residentFilePages: Int(counters.value(.rssFile)),
      residentSharedPages: Int(counters.value(.rssSharedMemory)),
      peakResidentPages: Int(counters.highWaterRSS))
  }

  /// Waits for the space's lock so far; `nil` when the space was made without statistics.
  public var lockStatistics: LockStatistics? { lock.pointee.ledger?.statistics() }

  /// How the threads' VMA caches fared so far; `nil` when the space was made without (Linux until 6.0,
  /// `vmacache_find_hits` in /proc/vmstat). Takes no lock.
  public var vmaCacheStatistics: VMACacheStatistics? {
    layout.pointee.usesCache ? layout.pointee.cacheStatistics() : nil
  }

  /// Requests for the lock that wait now. 0 without statistics.
  var waitingRequests: Int {
    Int(lock.pointee.ledger?.pointee.waiting.load(ordering: .acquiring) ?? 0)
  }
}
