// SPDX-License-Identifier: Apache-2.0
//
// Polling before a request takes its place in the queue: most holds are shorter than what queueing costs.
//
// Guarantee: a bounded time, in which the request is in nobody's way; nobody is overtaken by it, since it is granted only
// where the fast path grants: with nobody in front, waiters included. It may be overtaken itself: its place in the queue
// is that of its publication.
// Mechanism: as long as one other request, at most, is in each home shard and the lock is in the directory's time, look
// again after twice as many pauses as before. So who holds has its line to itself meanwhile.
// Cost: about 2 microseconds at most. Not where somebody waits already, or where other levels are in the way.

import CRangeland
import Synchronization

/// How long is polled before a request queues, in pauses of the processor.
enum Polling {
  static let firstPauses = 8
  static let mostPauses = 128
}

extension Directory {
  /// Grants the range if that is possible within a short time; false decides nothing.
  @inline(never)
  func acquirePolling(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef) -> Bool {
    let homes = homes(level(of: range), range)
    var pauses = Polling.firstPauses
    while pauses <= Polling.mostPauses {
      // Hints all: the fast path decides.
      if !homes.mayBeHeldByOne || !isInDirectoryTime { return false }
      for _ in 0..<pauses { rl_cpu_relax() }
      pauses &*= 2
      if !homes.isOccupied, acquireFast(range, mode, entry) { return true }
    }
    return false
  }
}

extension Homes {
  /// Whether somebody is there, and no shard has more than one entry: nobody waits there.
  fileprivate var mayBeHeldByOne: Bool {
    var (most, sum): (UInt32, UInt32) = (0, 0)
    visitAll {
      let count = $0.pointer.pointee.word.load(ordering: .relaxed) / Shard.one
      most = max(most, count)
      sum += count
    }
    return most <= 1 && sum > 0
  }
}
