// SPDX-License-Identifier: Apache-2.0
//
// Waiting for a grant in a task: suspended, so that no thread of the pool is blocked.
//
// Guarantee: the task is resumed once: by the drop that grants, or by its cancellation. A grant that came first
// is kept; a request that was cancelled leaves nothing behind.
// Mechanism: the continuation is in the entry; a flag in the count's word says so. See "Tasks" in
// docs/range-lock.md for who resumes.
// Cost: a suspension and a resumption; no thread sleeps.

import CRangeland
import Synchronization

extension Directory {
  /// Suspends until `entry` is granted; false, and the entry gone, if the task was cancelled before.
  func suspend(_ entry: EntryRef) async -> Bool {
    await withTaskCancellationHandler {
      await withUnsafeContinuation { (continuation: UnsafeContinuation<Bool, Never>) in
        counters.add(.parks)
        entry.continuation.initialize(to: continuation)
        // Releases the continuation; acquires like a grant.
        let old = entry.pointer.pointee.state.bitwiseOr(
          Entry.suspended, ordering: .acquiringAndReleasing
        ).oldValue
        if old & Entry.countMask == 0 {
          // The grant came before it could see the flag.
          continuation.resume(returning: true)
        } else if old & Entry.cancelRequested != 0, cancel(entry) {
          continuation.resume(returning: false)
        }
        // Otherwise the grant, or the cancellation, finds the flag.
      }
    } onCancel: {
      cancelSuspended(entry)
    }
  }

  /// Cancels a request whose task may be suspended, about to be, or resumed; but not gone on.
  private func cancelSuspended(_ entry: EntryRef) {
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
    if cancel(entry) { continuation.resume(returning: false) }
  }
}
