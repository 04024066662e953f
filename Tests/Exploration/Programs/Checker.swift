// SPDX-License-Identifier: Apache-2.0
//
// What must be true of every execution, checked from outside of the lock while it runs.
//
// - Mutual exclusion: when a request is granted no conflicting hold is there; and uses of a key are ordered by
//   happens-before (`rx_touch`), so that what was written is visible.
// - Order (in the throughput setting, but for a number of times): a request that began, or whose place was decided, after a conflicting one was in the queue is not granted
//   before that one has ended. The second "after" is happens-before, so that it does not depend on which of several
//   equivalent schedules was run.
// - Exactness: a try fails, and a request waits, only if a conflicting request was there meanwhile that was not
//   itself a try that failed.
// Sleep without a waker is found by the engine, what is left behind at the end by `ProgramRun`.

import CExplorer
import ExploredRangeLocks

/// What became of a request.
enum RequestState: UInt8 {
  case unborn, asking, queued, holding, releasing, ended, refused, gaveUp

  var isPresent: Bool {
    self == .asking || self == .queued || self == .holding || self == .releasing
  }
}

/// What is known of a request. Plain data.
struct RequestRecord {
  var state = RequestState.unborn
  /// As `LockMode`.
  var mode: UInt8 = 0
  var isTry = false
  /// Keys that others may wait for, whatever the mode says, while a change of the hold is under way.
  var reasonKeys: UInt32 = 0
  /// The requests, as bits, that were made in the same call: they have one fate.
  var partners: UInt32 = 0
  var waited = false
  /// Whether its task may have been taken out of the queue: it does not know yet.
  var mayBeGone = false
  var thread: UInt32 = 0
  var keys: UInt32 = 0
  /// The operations of its thread when it was in the queue.
  var queuedEpoch: UInt32 = 0
  /// How often it was overtaken.
  var passes: UInt8 = 0
  /// Requests, as bits: conflicting ones that were present at some time while this one asked; those that have to
  /// end first.
  var met: UInt32 = 0
  var mustFollow: UInt32 = 0

  func conflicts(with other: RequestRecord) -> Bool {
    keys & other.keys != 0 && mode + other.mode >= 2
  }
}

/// The checks. A handle: it is used on coroutines that may never end, so it owns nothing.
struct Checker {
  let records: UnsafeMutablePointer<RequestRecord>
  let count: Int
  /// Whether requests are first come, first served, and tries exact; a semaphore promises less.
  let isStrict: Bool
  /// How often a request may be granted before one that it came after; that is counted for the latter.
  let mostPasses: Int

  func reset() { records.update(repeating: RequestRecord(), count: count) }

  func begins(_ step: Step, thread: UInt32) {
    let me = step.request
    rx_begin_request()
    // Somebody may be cancelling its task already.
    let mayBeGone = records[me].mayBeGone
    records[me] = RequestRecord(
      state: .asking, mode: step.mode, isTry: step.verb == .tryLock, mayBeGone: mayBeGone,
      thread: thread, keys: step.keys)
    for other in 0..<count where other != me && records[other].state.isPresent {
      let isReason =
        records[other].conflicts(with: records[me])
        || records[other].reasonKeys & step.keys != 0
      guard isReason else { continue }
      records[me].met |= 1 << UInt32(other)
      records[other].met |= 1 << UInt32(me)
      if records[other].state == .queued, isStrict || step.mode == 0 {
        records[me].mustFollow |= 1 << UInt32(other)
      }
    }
  }

  /// The thread's request is in the queue.
  func queued(thread: UInt32) {
    for me in 0..<count where records[me].thread == thread && records[me].state == .asking {
      if records[me].isTry { rx_fail("a try waits") }
      records[me].waited = true
      decided(me)
      records[me].state = .queued
      records[me].queuedEpoch = rx_epoch(thread)
    }
  }

  func granted(_ me: Int) {
    if !records[me].waited { decided(me) }
    for other in 0..<count where other != me && records[other].conflicts(with: records[me]) {
      let (state, bit) = (records[other].state, UInt32(1) << UInt32(other))
      if state == .holding {
        fail("exclusion: a request is granted beside a conflicting hold", me, other)
      }
      if records[me].mustFollow & bit != 0, state == .queued, !records[other].mayBeGone,
        !rx_timed_out(records[other].thread)
      {
        records[other].passes += 1
        if records[other].passes > mostPasses {
          fail("order: a request is granted before one that it came after", me, other)
        }
      }
    }
    records[me].state = .holding
  }

  /// Remembers whom the request came after, at the time when its place is decided.
  private func decided(_ me: Int) {
    guard isStrict || records[me].mode == 0 else { return }
    for other in 0..<count where other != me && records[other].state == .queued {
      if records[other].conflicts(with: records[me]),
        rx_knows(records[other].thread, records[other].queuedEpoch)
      {
        records[me].mustFollow |= 1 << UInt32(other)
      }
    }
  }

  /// A change of the hold begins: what it gives up may be taken from now on.
  func changes(_ me: Int, mode: UInt8, keys: UInt32) {
    records[me].reasonKeys = records[me].keys
    records[me].mode = mode
    records[me].keys = keys
  }

  func changed(_ me: Int) { records[me].reasonKeys = 0 }

  /// An upgrade begins: from now on others may have to wait.
  func upgrades(_ me: Int) {
    records[me].reasonKeys = records[me].keys
    for other in 0..<count where records[other].state == .asking {
      if records[other].keys & records[me].keys != 0 { records[other].met |= 1 << UInt32(me) }
    }
  }

  func upgraded(_ me: Int) {
    records[me].mode = 2
    records[me].reasonKeys = 0
    for other in 0..<count where other != me && records[other].state == .holding {
      if records[other].conflicts(with: records[me]) {
        fail("exclusion: an upgrade is granted beside a conflicting hold", me, other)
      }
    }
  }

  func arePartners(_ one: Int, _ other: Int) {
    records[one].partners |= 1 << UInt32(other)
    records[other].partners |= 1 << UInt32(one)
  }

  func ends(_ me: Int, _ state: RequestState) {
    records[me].state = state
    // What nobody will ask for is no part of a state.
    records[me].mustFollow = 0
    if state != .releasing, !records[me].waited, state != .refused { records[me].met = 0 }
  }

  /// What can only be said when everything is over.
  func finish() {
    guard isStrict else { return }
    for me in 0..<count where records[me].waited || records[me].state == .refused {
      var isJustified = false
      var met = records[me].met
      for other in 0..<count where records[me].partners >> UInt32(other) & 1 != 0 {
        met |= records[other].met
      }
      for other in 0..<count where met >> UInt32(other) & 1 != 0 {
        if records[other].state != .refused { isJustified = true }
      }
      if !isJustified {
        rx_fail(
          "exactness: request \(me) \(records[me].waited ? "waits" : "fails") and no conflicting request is there"
        )
      }
    }
  }

  private func fail(_ what: String, _ me: Int, _ other: Int) {
    rx_fail(
      "\(what): request \(me) of thread \(records[me].thread), request \(other) of thread \(records[other].thread)"
    )
  }
}
