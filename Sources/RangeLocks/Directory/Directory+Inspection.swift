// SPDX-License-Identifier: Apache-2.0
//
// Looking at a directory from outside: counts for tests and diagnostics.
//
// Guarantee: each shard is seen at one instant; different shards are not.
// Cost: latches every shard of the levels in use, one at a time.

import Synchronization

extension Directory {
  /// The requests that hold and those that wait.
  func census() -> (holders: Int, waiters: Int) {
    // Neither number can change its place while we count.
    modeLatch.pointee.lock()
    defer { modeLatch.pointee.unlock() }
    let word = header.pointee.word.load(ordering: .relaxed)
    var holders = word & WholeWord.heldBit != 0 ? 1 : 0
    var waiters = 0
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    for level in 0...header.pointee.topLevel where inUse >> UInt64(level) & 1 != 0 {
      for index in 0..<Self.shardCount {
        let shard = shard(level, index: index)
        shard.lock(adding: 0)
        shard.tree.pointee.forEach(overlapping: .all) { entry in
          // An entry with several homes counts at its first.
          if homes(level, entry.range).lower != shard { return true }
          let state = entry.pointer.pointee.state.load(ordering: .relaxed)
          if state & Entry.standing != 0 {
            holders += readersInside(entry)
            return true
          }
          if state & Entry.countMask == 0 || state & Entry.upgrading != 0 { holders += 1 }
          if state & Entry.countMask == 0 { return true }
          if state & Entry.cancelled == 0 {
            waiters += 1
          }
          return true
        }
        shard.unlock(removing: 0)
      }
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
  /// Calls `body` for every request, under the latch of a shard that it is in.
  func forEachRequest(_ body: (EntryRef, RangeLock.Request.State) -> Void) {
    // The entry of a hold of whole-lock mode is its owner's alone: it is linked first.
    while true {
      modeLatch.pointee.lock()
      if header.pointee.word.load(ordering: .relaxed) & WholeWord.heldBit == 0 { break }
      modeLatch.pointee.unlock()
      leaveWhole()
    }
    defer { modeLatch.pointee.unlock() }
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    for level in 0...header.pointee.topLevel where inUse >> UInt64(level) & 1 != 0 {
      for index in 0..<Self.shardCount {
        let shard = shard(level, index: index)
        if shard.count == 0 { continue }
        shard.lock(adding: 0)
        shard.tree.pointee.forEach(overlapping: .all) { entry in
          // An entry with several homes is told at its first.
          if homes(level, entry.range).lower == shard, let state = requestState(entry) {
            body(entry, state)
          }
          return true
        }
        shard.unlock(removing: 0)
      }
    }
  }

  /// Nil for a request that was taken back and is about to go.
  private func requestState(_ entry: EntryRef) -> RangeLock.Request.State? {
    let state = entry.pointer.pointee.state.load(ordering: .relaxed)
    if state & Entry.standing != 0, readersInside(entry) == 0 { return nil }
    if state & Entry.upgrading != 0 { return .upgrading }
    if state & Entry.countMask == 0 { return .holding }
    return state & Entry.cancelled == 0 ? .waiting : nil
  }
}
