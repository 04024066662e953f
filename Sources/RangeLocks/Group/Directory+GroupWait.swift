// SPDX-License-Identifier: Apache-2.0
//
// Waiting for several ranges, and giving them back.
//
// Guarantee: all ranges are granted in one step, or none. Until then none of them counts as held: an upgrade of a hold
// that shares keys with one stands in front of all, as it does with any request that waits.
// Mechanism: one entry waits for all, on the stack of one request that is in front of one range. Whoever takes it from there
// looks at one range after the other, up to the first that has somebody in front; with nobody in front of any, one
// compare-and-swap grants all. See "Several ranges" in docs/range-lock.md.
// Cost: a look around for each range and one for each request that it had to wait for.

import CRangeland
import Synchronization

extension Directory {
  /// Publishes and waits until all ranges are granted; nil when the deadline passed first.
  func acquireGroup(
    _ pieces: UnsafeBufferPointer<RangeRequest>, deadline: UInt64, _ site: CallSite
  ) -> EntryGroup? {
    if deadline == .max { checkOrder(pieces, site) }
    return observing(pieces) { acquireGroupPatiently(pieces, deadline: deadline, site) }
  }

  /// Tells an observer of the request that `body` makes.
  private func observing(
    _ pieces: UnsafeBufferPointer<RangeRequest>, _ body: () -> EntryGroup?
  ) -> EntryGroup? {
    if !isObserved { return body() }
    for piece in pieces { tellStarted(piece.range, piece.mode) }
    let group = body()
    tellEnded(pieces, group)
    return group
  }

  private func acquireGroupPatiently(
    _ pieces: UnsafeBufferPointer<RangeRequest>, deadline: UInt64, _ site: CallSite
  ) -> EntryGroup? {
    while true {
      guard let group = makeGroup(pieces) else {
        if deadline != .max, rl_monotonic_ns() >= deadline { return nil }
        rl_yield()
        continue
      }
      switch publishInDirectory(group, mayWait: true) {
      case .granted: return group
      case .queued:
        counters.add(.contended)
        let note = noteWait(group, site, canGiveUp: deadline != .max)
        let isGranted = wait(group.waiter, deadline: deadline)
        note.end()
        if !isGranted { return nil }
        counters.add(.handOffs)
        return group
      case .refused, .noMemory, .moved:
        discard(group)
        if deadline != .max, rl_monotonic_ns() >= deadline { return nil }
        rl_yield()
      }
    }
  }

  /// Takes all ranges if nothing conflicts.
  func tryAcquireGroup(_ pieces: UnsafeBufferPointer<RangeRequest>) -> EntryGroup? {
    observing(pieces) {
      guard let group = makeGroup(pieces) else { return nil }
      if publishInDirectory(group, mayWait: false) == .granted { return group }
      discard(group)
      return nil
    }
  }

  func publishInDirectory(_ group: EntryGroup, mayWait: Bool) -> Outcome {
    while true {
      if !isOpen { leaveWhole() }
      let outcome = publish(group, mayWait: mayWait)
      if outcome != .moved { return outcome }
    }
  }

  /// True if there is somebody in front of a range of the group; then the group is no longer ours.
  ///
  /// A range that had nobody in front is not looked at again before the grant: who comes to stand in front, an upgrade,
  /// makes the grant fail, and then all are. The look that published the group does not count. It was before the
  /// stamp, so it may have missed a request with a smaller one.
  func queueAgain(_ group: EntryGroup) -> Bool {
    while let entry = group[group.place] {
      if queueAgain(entry, group.waiter, .queue) { return true }
      group.place += 1
    }
    group.place = 0
    return false
  }

  /// Takes back what waits for several ranges; false if the grant came first.
  func takeBack(_ group: EntryGroup) -> Bool {
    if !renounce(group.waiter) { return false }
    group.visitAll { withdraw($0) }
    // Somebody may be looking at a range for the group just now: the last one gives all blocks back.
    group.waiter.drop(pool)
    return true
  }

  /// Ends a granted group.
  func release(_ group: EntryGroup) {
    if isObserved { group.visitAll { tellReleased($0) } }
    group.visitAll { release($0) }
    // Not before: what is still linked names the first block.
    group.giveBlocks(pool)
  }
}
