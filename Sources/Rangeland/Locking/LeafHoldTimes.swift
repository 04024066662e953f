// SPDX-License-Identifier: Apache-2.0
//
// How long layout leaves stay latched: L-3. Checked builds only.
//
// A section is stamped when its leaves have been latched and when they are let go; what lies between must
// neither call the kernel nor run a callback (`LockOrder.assertNoLeafHeld`).

import CRangeland
import Synchronization

/// A histogram of the sections under layout leaf latches in this process, in powers of two of cycles.
enum LeafHoldTimes {
  #if RANGELAND_CHECKS
    // Atomics: safe to share.
    nonisolated(unsafe) private static let buckets: UnsafeMutablePointer<Atomic<UInt64>> = {
      let memory = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: 65)
      for i in 0..<65 { (memory + i).initialize(to: Atomic(0)) }
      return memory
    }()

    /// The thread's first leaf has been latched. Thread-local word 2 keeps the stamp.
    static func begin() { rl_tls_set(2, rl_cycles()) }

    /// The thread's last leaf is let go.
    static func end() {
      let cycles = rl_cycles() &- rl_tls_get(2)
      buckets[64 - cycles.leadingZeroBitCount].add(1, ordering: .relaxed)
    }

    /// Sections so far.
    static var count: UInt64 {
      (0..<65).reduce(0) { $0 + buckets[$1].load(ordering: .relaxed) }
    }

    /// An upper bound in cycles that `share` of the sections so far did not exceed; 0 without sections.
    static func quantile(_ share: Double) -> UInt64 {
      let wanted = Double(count) * share
      var seen: UInt64 = 0
      for i in 0..<65 {
        seen += buckets[i].load(ordering: .relaxed)
        if seen > 0 && Double(seen) >= wanted { return i == 64 ? .max : 1 << UInt64(i) }
      }
      return 0
    }
  #endif
}
