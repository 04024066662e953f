// SPDX-License-Identifier: Apache-2.0
//
// Waiting for the grant of a published request.
//
// Guarantee: returns true once the request is granted, false only if the deadline passed and the request was
// taken back; a grant that races with the deadline is kept.
// Mechanism: poll a bounded time, then say so in the word and sleep on it.
// Cost: no latch is held; one system call to sleep, one for the granter to wake.

import CRangeland
import Synchronization

extension Directory {
  /// Polls before the first sleep: about 2 microseconds, less than a sleep and a wake-up cost.
  static let waitSpinLimit = 100

  /// Waits for `entry`, until `deadline` (CLOCK_MONOTONIC nanoseconds, UInt64.max = for ever).
  @inline(never)
  func wait(_ entry: EntryRef, deadline: UInt64) -> Bool {
    let state = entry.pointer
    var polls = 0
    while polls < Self.waitSpinLimit {
      // Acquires the sections of all blockers from who grants.
      let now = state.pointee.state.load(ordering: .acquiring)
      if now & Entry.countMask == 0 { return true }
      if now & Entry.invited != 0, takeInvitation(entry) { return true }
      rl_cpu_relax()
      polls += 1
    }
    while true {
      let old = state.pointee.state.bitwiseOr(Entry.parked, ordering: .acquiring).oldValue
      if old & Entry.countMask == 0 { return true }
      if old & Entry.invited != 0 {
        if takeInvitation(entry) { return true }
        continue
      }
      counters.add(.parks)
      let error = rl_futex_wait(entry.stateAddress, old | Entry.parked, deadline)
      if error == -ETIMEDOUT { return !takeBack(entry) }
    }
  }
}
