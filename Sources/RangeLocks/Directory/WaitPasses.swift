// SPDX-License-Identifier: Apache-2.0
//
// The throughput setting: requests that pass others which wait.
//
// Guarantee: only who does not hold is passed, and at most `WaitPasses.limit` times; see "Throughput" in
// docs/range-lock.md.
// Mechanism: who passes counts itself in the state of the one that it passes, and sets the flag that makes the other
// look again before it is granted. A thread that waits is not granted but invited, and looks by itself when it is
// awake.
// Cost: one compare-and-swap for each that is passed.

import CRangeland
import Synchronization

/// How often a waiting request may be passed.
enum WaitPasses {
  /// About as much work as some switches between threads; fits `Entry.passMask`.
  static let limit: UInt32 = 8192
}

extension EntryRef {
  /// Passes self, if it waits and has not been passed too often. Needs a home latch of self, and of who passes.
  func pass(_ most: UInt32) -> Bool {
    var old = pointer.pointee.state.load(ordering: .relaxed)
    while true {
      if old & Entry.cancelled != 0 { return true }
      if old & Entry.countMask == 0 || old & Entry.upgrading != 0 { return false }
      if (old & Entry.passMask) / Entry.passOne >= most { return false }
      // Relaxed, as in `standInFront`.
      let result = pointer.pointee.state.compareExchange(
        expected: old, desired: (old &+ Entry.passOne) | Entry.again, ordering: .relaxed)
      if result.exchanged { return true }
      old = result.original
    }
  }

  /// Lets the waiting thread look by itself, if it may be passed until it does; nil if it is to be granted, false if
  /// somebody came in front meanwhile. Needs to have self for oneself, which ends here if the answer is true.
  func invite(_ most: UInt32) -> Bool? {
    var old = pointer.pointee.state.load(ordering: .relaxed)
    while true {
      if (old & Entry.passMask) / Entry.passOne >= most
        || old & (Entry.upgrading | Entry.cancelled) != 0
      {
        return nil
      }
      let isToLookAgain = old & Entry.again != 0
      // Releases what the thread needs to look, which includes the sections of those that were in front.
      let result = pointer.pointee.state.compareExchange(
        expected: old, desired: isToLookAgain ? old & ~Entry.again : old | Entry.invited,
        successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if result.exchanged {
        if isToLookAgain { return false }
        // The thread may go on from here: only the address is used, as in `granted`.
        if old & Entry.parked != 0 { _ = rl_futex_wake(stateAddress, 1) }
        return true
      }
      old = result.original
    }
  }

  /// Takes the invitation. If it is in vain, nobody passes self any more.
  func acceptInvitation() {
    var old = pointer.pointee.state.load(ordering: .relaxed)
    while true {
      // Acquires from who invited.
      let result = pointer.pointee.state.compareExchange(
        expected: old, desired: old & ~(Entry.invited | Entry.parked) | Entry.passMask,
        ordering: .acquiring)
      if result.exchanged { return }
      old = result.original
    }
  }
}

extension Directory {
  /// Whether a request for `range` may pass all that conflict with it in a shard, and does. Needs the latch, with a
  /// raised count.
  @inline(never)
  func passWaiters(_ shard: ShardRef, _ range: KeyRange, _ mode: LockMode) -> Bool {
    let most = header.pointee.mostPasses
    var passesAll = true
    shard.tree.pointee.forEach(overlapping: range) { other in
      if !other.pointer.pointee.mode.conflicts(with: mode) { return true }
      passesAll = other.pass(most)
      if passesAll { counters.add(.overtakings) }
      return passesAll
    }
    return passesAll
  }

  /// The state of a request that nobody may pass.
  static let unpassable: UInt32 = Entry.passMask
}
