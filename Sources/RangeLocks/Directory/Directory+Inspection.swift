// SPDX-License-Identifier: Apache-2.0
//
// Looking at a directory from outside: counts for tests and diagnostics.
//
// Guarantee: each shard is seen at one instant; different shards are not.
// Cost: latches every shard of the levels in use, one at a time.

import Synchronization

extension Directory {
  /// The requests that hold and those that wait; an upgrade that waits does both.
  func census() -> (holders: Int, waiters: Int) {
    var (holders, waiters) = (0, 0)
    modeLatch.pointee.lock()
    defer { modeLatch.pointee.unlock() }
    // A hold of whole-lock mode is alone, and is left there.
    if header.pointee.word.load(ordering: .relaxed) & WholeWord.heldBit != 0 { return (1, 0) }
    forEachRequestLocked { _, state, count in
      if state != .waiting { holders += count }
      if state != .holding { waiters += count }
    }
    return (holders, waiters)
  }

  /// Whether nobody holds or waits. Exact only while nobody uses the lock.
  var isUnused: Bool {
    closeIdleStripes()
    return header.pointee.word.load(ordering: .acquiring) & WholeWord.heldBit == 0 && isEmpty
  }

  /// Whether no shard has an entry. Exact only while nobody can add one.
  var isEmpty: Bool {
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    for level in 0...header.pointee.topLevel where inUse >> UInt64(level) & 1 != 0 {
      for index in 0..<Self.shardCount where shard(level, index: index).count != 0 { return false }
    }
    return true
  }
}

// MARK: - Requests

extension Directory {
  /// Calls `body` for every request, under the latch of a shard that it is in. A number tells how many readers of a
  /// hot range an entry stands for; otherwise it is 1.
  func forEachRequest(_ body: (EntryRef, RangeLock.Request.State, Int) -> Void) {
    modeLatch.pointee.lock()
    defer { modeLatch.pointee.unlock() }
    // The entry of a hold of whole-lock mode is its owner's alone: it is linked first.
    leaveWholeLocked()
    forEachRequestLocked(body)
  }

  /// The same for a directory that is open. Needs the mode latch.
  private func forEachRequestLocked(_ body: (EntryRef, RangeLock.Request.State, Int) -> Void) {
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    for level in 0...header.pointee.topLevel where inUse >> UInt64(level) & 1 != 0 {
      for index in 0..<Self.shardCount {
        let shard = shard(level, index: index)
        if shard.count == 0 { continue }
        shard.lock(adding: 0)
        shard.tree.pointee.forEach(overlapping: .all) { entry in
          // An entry with several homes is told at its first.
          if homes(level, entry.range).lower == shard { tell(entry, body) }
          return true
        }
        shard.unlock(removing: 0)
      }
    }
  }

  private func tell(_ entry: EntryRef, _ body: (EntryRef, RangeLock.Request.State, Int) -> Void) {
    let state = entry.decisive.pointer.pointee.state.load(ordering: .relaxed)
    if state & Entry.standing != 0 {
      let inside = readersInside(entry)
      if inside > 0 { body(entry, .holding, inside) }
    } else if state & Entry.upgrading != 0 {
      body(entry, .upgrading, 1)
    } else if state & Entry.countMask == 0 {
      body(entry, .holding, 1)
    } else if state & Entry.cancelled == 0 {
      // A request that was taken back is about to go.
      body(entry, .waiting, 1)
    }
  }
}
