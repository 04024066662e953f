// SPDX-License-Identifier: Apache-2.0
//
// Waiting for the grant of a published request.
//
// Guarantee: returns true once the request is granted, false only if the deadline passed and the request was
// taken back; a grant that races with the deadline is kept.
// Mechanism: poll a bounded time, then say so in the word and sleep on it. How long a thread polls follows what came of
// it before: threads that hand a range over to each other faster than one can be woken poll, and where there are more
// threads than processors polling is in vain and ends soon. Now and then it is tried for longer all the same, since threads
// that sleep are woken too late for polls of others to succeed.
// Cost: no latch is held; one system call to sleep, one for the granter to wake.

import CRangeland
import Synchronization

/// How long a thread polls before it sleeps, in polls of some 20 nanoseconds. Zero is a valid one.
struct WaitBudget {
  private var extra: UInt32
  private var sleeps: UInt32

  /// What it is at least: less than a sleep and a wake-up cost.
  static let least: UInt32 = 100
  /// What it is at most, and every so many times after a sleep.
  static let most: UInt32 = 2000
  static let sleepsBetween: UInt32 = 16

  func next() -> UInt32 {
    sleeps >= Self.sleepsBetween ? Self.most : Self.least &+ extra
  }

  /// It was granted after so many polls: three times as many would have been enough nearly always.
  mutating func note(polls: UInt32) {
    let wanted = min(3 &* polls, Self.most &- Self.least)
    if wanted > extra { extra = wanted } else { extra &-= (extra &- wanted) / 8 }
    sleeps = 0
  }

  mutating func noteSleep() {
    extra /= 2
    sleeps = sleeps >= Self.sleepsBetween ? 0 : sleeps &+ 1
  }
}

extension Directory {
  /// Waits for `entry`, until `deadline` (CLOCK_MONOTONIC nanoseconds, UInt64.max = for ever).
  @inline(never)
  func wait(_ entry: EntryRef, deadline: UInt64) -> Bool {
    let state = entry.pointer
    let budget = pool.waitBudget()
    let limit = budget.pointee.next()
    var polls: UInt32 = 0
    while polls < limit {
      // Acquires the sections of all blockers from who grants.
      let now = state.pointee.state.load(ordering: .acquiring)
      if now & Entry.countMask == 0 {
        budget.pointee.note(polls: polls)
        return true
      }
      if now & Entry.invited != 0, takeInvitation(entry) { return true }
      rl_cpu_relax()
      polls += 1
    }
    budget.pointee.noteSleep()
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
