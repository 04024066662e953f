// SPDX-License-Identifier: Apache-2.0
//
// The lock-order tree of docs/design.md section 4, checked at run time in checked builds.
//
// Each thread keeps a count for every rank. Waiting for a lock while one of the same or a later rank is
// held traps, except two leaves (ascending, which Layout checks itself). A *try* may go against the
// order: it does not wait.

import CRangeland
import RangeLocks

/// A level of the lock-order tree, outermost first.
enum LockRank: UInt8, CaseIterable {
  case space
  /// Pages of an object go: those who need one wait, and whoever takes them out goes on to all who map them.
  case objectRemoval
  case objectMappings
  case layoutLeaf
  case layoutShape
  case pageTable
  /// Frame lists, slab pools, counters, the wait ledger: never nested in each other.
  case innermost
}

enum LockOrder {
  #if RANGELAND_CHECKS
    /// Eight bits for each rank: how many the thread holds. Thread-local word 0.
    private static func held(_ rank: LockRank) -> UInt64 {
      rl_tls_get(0) >> (UInt64(rank.rawValue) * 8) & 0xff
    }
  #endif

  /// Whether the thread holds a lock of `rank`: true outside checked builds.
  static func isHeld(_ rank: LockRank) -> Bool {
    #if RANGELAND_CHECKS
      held(rank) > 0
    #else
      true
    #endif
  }

  /// Before waiting for a lock of `rank`.
  @inline(__always)
  static func willWait(_ rank: LockRank) {
    #if RANGELAND_CHECKS
      for later in LockRank.allCases where later.rawValue >= rank.rawValue {
        let mayNest = later == rank && rank == .layoutLeaf
        precondition(
          rank != .space || held(.space) == 0,
          "the space is used by a hook that runs under its lock, or by an operation of its own: special "
            + "mappings' hooks must not call an address space")
        precondition(
          mayNest || held(later) == 0,
          "lock order: \(rank) is wanted while \(later) is held (docs/design.md section 4)")
      }
    #endif
  }

  /// After a lock of `rank` was taken, by waiting or by a try.
  @inline(__always)
  static func acquired(_ rank: LockRank) {
    #if RANGELAND_CHECKS
      if rank == .layoutLeaf && held(rank) == 0 { LeafHoldTimes.begin() }
      rl_tls_set(0, rl_tls_get(0) &+ 1 << (UInt64(rank.rawValue) * 8))
    #endif
  }

  /// After a lock of `rank` was released by the thread that took it.
  @inline(__always)
  static func released(_ rank: LockRank) {
    #if RANGELAND_CHECKS
      precondition(held(rank) > 0, "lock order: \(rank) is released but not held")
      rl_tls_set(0, rl_tls_get(0) &- 1 << (UInt64(rank.rawValue) * 8))
      if rank == .layoutLeaf && held(rank) == 0 { LeafHoldTimes.end() }
    #endif
  }

  /// Before a call to the kernel, a wait for other threads' accesses, or a callback: none of them runs under
  /// a leaf latch (L-3).
  @inline(__always)
  static func assertNoLeafHeld(_ what: StaticString) {
    #if RANGELAND_CHECKS
      precondition(
        held(.layoutLeaf) == 0 && held(.layoutShape) == 0, "a layout leaf is latched across \(what)"
      )
    #endif
  }

  /// Before anything that may block for long: I/O, memory, a user's handler (rule 5).
  @inline(__always)
  static func assertNothingHeld(_ what: StaticString) {
    #if RANGELAND_CHECKS
      precondition(rl_tls_get(0) == 0, "rule 5: a lock is held across \(what)")
    #endif
  }
}

extension Latch {
  /// `lock()` with its rank checked.
  @inline(__always)
  borrowing func lock(_ rank: LockRank) {
    LockOrder.willWait(rank)
    lock()
    LockOrder.acquired(rank)
  }

  /// `tryLock()` with its rank counted.
  @inline(__always)
  borrowing func tryLock(_ rank: LockRank) -> Bool {
    if !tryLock() { return false }
    LockOrder.acquired(rank)
    return true
  }

  /// `unlock()` with its rank checked.
  @inline(__always)
  borrowing func unlock(_ rank: LockRank) {
    LockOrder.released(rank)
    unlock()
  }
}
