// SPDX-License-Identifier: Apache-2.0
//
// Waiting for a grant in a task: suspended, so that no thread of the pool is blocked.
//
// Guarantee: the task is resumed once: by the drop that grants, by its cancellation, or at its deadline. A grant that
// came first is kept; a request that gave up leaves nothing behind.
// Mechanism: the continuation is in the entry; a flag in the count's word says so. See "Tasks" in
// docs/range-lock.md for who resumes.
// Cost: a suspension and a resumption; no thread sleeps. With a deadline a block, and a place in `AlarmClock`.

import CRangeland
import Synchronization

extension Directory {
  /// Suspends until `entry` is granted; false, and the entry gone, if the task was cancelled or `alarm` rang before.
  func suspend(
    _ entry: EntryRef, deadline: UInt64, _ alarm: Alarm?, _ note: WaitNote
  ) async -> Bool {
    if let alarm {
      // One that has passed does not wait.
      if rl_monotonic_ns() >= deadline, takeBack(entry) { return false }
      AlarmClock.shared.set(alarm, deadline, entry, self)
    }
    let isGranted = await withTaskCancellationHandler {
      await withUnsafeContinuation { (continuation: UnsafeContinuation<Bool, Never>) in
        counters.add(.parks)
        if let isGranted = prepareToSuspend(entry, continuation) {
          continuation.resume(returning: isGranted)
        }
      }
    } onCancel: {
      note.willGiveUp()
      giveUpSuspended(entry, alarm)
    }
    if let alarm { AlarmClock.shared.stop(alarm) }
    return isGranted
  }

  /// Leaves the continuation to whoever grants or takes back; if that has happened, how: then nobody resumes.
  func prepareToSuspend(
    _ entry: EntryRef, _ continuation: UnsafeContinuation<Bool, Never>
  ) -> Bool? {
    entry.continuation.initialize(to: continuation)
    // Releases the continuation; acquires like a grant.
    let old = entry.pointer.pointee.state.bitwiseOr(
      Entry.suspended, ordering: .acquiringAndReleasing
    ).oldValue
    // The grant came before it could see the flag.
    if old & Entry.countMask == 0 { return true }
    if old & Entry.cancelRequested != 0, takeBack(entry) { return false }
    // The grant, or who takes it back, finds the flag.
    return nil
  }

  /// Gives up for a task that is cancelled, unless its alarm did.
  func giveUpSuspended(_ entry: EntryRef, _ alarm: Alarm?) {
    if let alarm { AlarmClock.shared.giveUp(alarm) } else { takeBackSuspended(entry) }
  }

  /// Takes back a request whose task may be suspended, about to be, or resumed; but not gone on. At most once.
  func takeBackSuspended(_ entry: EntryRef) {
    var old = entry.pointer.pointee.state.load(ordering: .acquiring)
    while old & Entry.suspended == 0 {
      if old & Entry.countMask == 0 { return }
      // The task has not set its flag: it will see ours.
      let result = entry.pointer.pointee.state.compareExchange(
        expected: old, desired: old | Entry.cancelRequested, successOrdering: .relaxed,
        failureOrdering: .acquiring)
      if result.exchanged { return }
      old = result.original
    }
    // Only read: whoever resumes, the entry stays until the task goes on, and that is not before we return.
    let continuation = entry.continuation.pointee
    if takeBack(entry) { continuation.resume(returning: false) }
  }
}
