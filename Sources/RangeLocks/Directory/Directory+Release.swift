// SPDX-License-Identifier: Apache-2.0
//
// Giving a range back, and taking a request back (cancel).
//
// Guarantee: whoever waited only for this entry is granted, and nobody else is woken; a cancelled request
// leaves nothing behind and never holds.
// Mechanism: unlink under the home latches, so that nobody queues behind us any more; then every entry that did
// looks for another one that it has to wait for, or is granted.
// Cost: one compare-and-swap and one exchange a home shard, one load when nobody waits; a look around for
// each that waits behind this entry.

import CRangeland
import Synchronization

extension Directory {
  /// Ends a granted request that is linked.
  @inline(__always)
  func release(_ entry: EntryRef) {
    unlink(entry)
    // Pushes happened under the latches that `unlink` took: a plain look sees them all.
    if entry.tail.pointee.dependents.load(ordering: .relaxed) != nil {
      letGoDependents(entry)
    }
    recycle(entry)
  }

  /// Gives the blocks of an ended request back.
  @inline(__always)
  private func recycle(_ entry: EntryRef) {
    if entry.pointer.pointee.shape & 3 != 1, let extra = entry.tail.pointee.extra,
      extra != adoptedExtra
    {
      pool.give(extra)
    }
    pool.give(entry.raw)
  }

  /// Takes the entry out of its home shards.
  @inline(__always)
  private func unlink(_ entry: EntryRef) {
    let homes = homes(entry.pointer.pointee.level, entry.range)
    unlink(entry.link0, homes.lower)
    if let upper = homes.upper { unlinkMore(entry, homes, upper) }
    entry.checkAndClearStamp()
  }

  @inline(never)
  private func unlinkMore(_ entry: EntryRef, _ homes: Homes, _ upper: ShardRef) {
    unlink(entry.link1, upper)
    if let middle = homes.middle { unlink(entry.link2, middle) }
  }

  @inline(__always)
  private func unlink(_ link: UnsafeMutablePointer<EntryLink>, _ shard: ShardRef) {
    shard.lock(adding: 0)
    shard.tree.pointee.remove(link)
    shard.checkInvariants(pending: 1)
    shard.unlock(removing: 1)
  }

  /// Takes back what waits, a request or an upgrade; false if the grant came first.
  func takeBack(_ entry: EntryRef) -> Bool {
    // Set for good before anybody could see it.
    let state = entry.pointer.pointee.state.load(ordering: .relaxed)
    if state & Entry.upgrading != 0 { return takeBackUpgrade(entry) }
    return state & Entry.grouped == 0 ? cancel(entry) : takeBack(EntryGroup(entry))
  }

  /// Takes back a request that has not been granted; false if the grant came first.
  private func cancel(_ entry: EntryRef) -> Bool {
    if !renounce(entry) { return false }
    withdraw(entry)
    entry.drop(pool)
    return true
  }

  /// Takes a request that has given up out of its shards. The blocks stay.
  func withdraw(_ entry: EntryRef) {
    unlink(entry)
    letGoDependents(entry)
  }

  /// Marks what waits as given up; false if the grant came first. The caller drops one when it is done with it.
  func renounce(_ entry: EntryRef) -> Bool {
    var old = entry.pointer.pointee.state.load(ordering: .acquiring)
    while true {
      if old & Entry.countMask == 0 { return false }
      // A token of our own: whoever finds the entry on a stack must not recycle while we still unlink. If it is invited
      // it is on none. Acquires like a grant would when it loses to one.
      let token: UInt32 = old & Entry.invited == 0 ? 1 : 0
      let result = entry.pointer.pointee.state.compareExchange(
        expected: old, desired: (old + token) | Entry.cancelled, successOrdering: .relaxed,
        failureOrdering: .acquiring)
      if result.exchanged { return true }
      old = result.original
    }
  }
}
