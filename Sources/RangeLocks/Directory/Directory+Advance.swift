// SPDX-License-Identifier: Apache-2.0
//
// Hand-off: what becomes of those that waited for a request that has ended.
//
// Guarantee: who has nobody in front any more is granted and woken; the others are not.
// Mechanism: a waiting request is on one stack at a time. Whoever takes it from there looks at everything that can
// stand in front of it, one latch at a time, and puts it on the stack of the first that does.
// Cost: a look around, as for an acquire; nothing is allocated.
// Lock order inside: no latch is held when it begins.

import CRangeland
import Synchronization

extension Directory {
  /// Lets go all that wait for `entry`. Needs the entry unlinked from every shard: nobody is pushed any more.
  @inline(never)
  func letGoDependents(_ entry: EntryRef) {
    var next = entry.takeDependents()
    while let waiter = next.map(EntryRef.init) {
      next = waiter.waiting.pointee.next
      advance(waiter)
    }
  }

  /// Of those that waited for `entry`, lets go who no longer conflicts with it: it changed its mode or its range.
  /// `waiting` was taken with all home latches, after the change.
  func letGoUnblocked(_ entry: EntryRef, _ waiting: UnsafeMutableRawPointer?) {
    let range = entry.range
    let mode = entry.pointer.pointee.mode
    var next = waiting
    while let waiter = next.map(EntryRef.init) {
      next = waiter.waiting.pointee.next
      // What waits for several ranges looks for itself.
      if waiter.pointer.pointee.state.load(ordering: .relaxed) & Entry.grouped == 0,
        waiter.range.overlaps(range), waiter.pointer.pointee.mode.conflicts(with: mode)
      {
        entry.push(waiter, pool)
      } else {
        advance(waiter)
      }
    }
  }

  /// Puts a waiting request, which was taken from a stack, behind another one that is in front of it, or grants it.
  private func advance(_ waiter: EntryRef) {
    while true {
      if waiter.pointer.pointee.state.load(ordering: .relaxed) & Entry.cancelled != 0 {
        return waiter.drop(pool)
      }
      if queueAgain(waiter) { return }
      if header.pointee.mostPasses != 0, let isInvited = waiter.invite(header.pointee.mostPasses) {
        if isInvited { return }
      } else if waiter.grant(pool) {
        return
      }
    }
  }

  /// The waiting thread takes its invitation: looks by itself who is in front now; true if nobody is and it is granted.
  func takeInvitation(_ waiter: EntryRef) -> Bool {
    waiter.acceptInvitation()
    while true {
      if queueAgain(waiter) { return false }
      if waiter.grant(pool) { return true }
    }
  }

  /// True if there is somebody in front; then `waiter` is no longer ours.
  ///
  /// It was published long ago and was seen by all that came later, so one shard after the other may be looked at.
  private func queueAgain(_ waiter: EntryRef) -> Bool {
    let state = waiter.pointer.pointee.state.load(ordering: .relaxed)
    if state & Entry.grouped != 0 { return queueAgain(EntryGroup(waiter)) }
    return queueAgain(waiter, waiter, state & Entry.upgrading != 0 ? .upgrade : .queue)
  }

  /// Looks for who is in front of `entry`, one range of `waiter`'s; true if there is somebody, who has `waiter` now.
  func queueAgain(
    _ entry: EntryRef, _ waiter: EntryRef, _ purpose: Examination.Purpose
  ) -> Bool {
    var examination = Examination(self, entry, purpose, waiter: waiter)
    let range = entry.range
    let level = entry.pointer.pointee.level
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    var coarser = (inUse &>> UInt64(level)) &>> 1
    var other = level
    while coarser != 0 {
      other &+= 1
      if coarser & 1 != 0 {
        let ancestors = homes(other, range)
        if ancestors.isOccupied {
          ancestors.lock(adding: 0)
          examine(ancestors, &examination)
          ancestors.unlock(removing: 0)
          if examination.isOver { return true }
        }
      }
      coarser &>>= 1
    }
    let homes = homes(level, range)
    homes.lock(adding: 0)
    examine(homes, &examination)
    examineFiner(level, homes, &examination)
    homes.unlock(removing: 0)
    return examination.isOver
  }
}
