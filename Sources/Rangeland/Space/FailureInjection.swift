// SPDX-License-Identifier: Apache-2.0
//
// Where tests take memory away. Checked builds only: the release build has no trace of it in what allocates.

extension AddressSpace {
  /// Test hook: lets `count` more allocations of nodes, frames and page tables succeed, and the next one fail, of
  /// all spaces that share the space's memory. Nothing happens unless the build is checked.
  package func failAllocation(after count: Int) {
    #if RANGELAND_CHECKS
      reclaimer.failAllocation(after: count)
    #endif
  }

  /// Ends `failAllocation(after:)`; whether an allocation has failed.
  package func disarmFailure() -> Bool {
    #if RANGELAND_CHECKS
      return reclaimer.disarmFailure()
    #else
      return false
    #endif
  }

  /// Whether allocations can be made to fail in this build.
  package static var canFailAllocations: Bool {
    #if RANGELAND_CHECKS
      true
    #else
      false
    #endif
  }
}
