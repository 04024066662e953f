// SPDX-License-Identifier: Apache-2.0
//
// Several ranges at once: one decision, one place in the queue.
//
// Guarantee: of two conflicting requests one is published completely before the other, whatever ranges they have, and
// all ranges are granted in one step; so no cycle of waiters is possible. A try publishes all ranges or none.
// Mechanism: as a slow acquire, with the home shards of all ranges and every other occupied shard that could hold
// a conflict latched together; then an entry for each range. Facts are cleared, never set or relied on. How it waits: see
// Directory+GroupWait.swift.
// Cost: a latch for each shard looked at; a bitmap of all shards on the stack.
// Lock order inside: as everywhere, coarser level first, in a level the lower shard address first.

import CRangeland
import Synchronization

extension Directory {
  /// Asks for all pieces; the group's entries are granted or wait. Nil when there is no memory now.
  func makeGroup(_ pieces: UnsafeBufferPointer<RangeRequest>) -> EntryGroup? {
    guard let group = pool.take().map(EntryGroup.init(block:)) else { return nil }
    for piece in pieces {
      guard let entry = pool.take().map(EntryRef.init) else {
        discard(group)
        return nil
      }
      entry.initialize(piece.range, piece.mode, token: 0)
      noteSince(entry)
      let level = level(of: piece.range)
      let homes = homes(level, piece.range)
      entry.pointer.pointee.shape = shape(level, homes)
      // For the third home, and for waiting.
      let needsExtra = homes.upper != nil
      entry.setSecondBlock(needsExtra ? pool.take() : nil)
      if needsExtra && entry.tail.pointee.extra == nil || !group.append(entry, pool) {
        entry.recycle(pool)
        discard(group)
        return nil
      }
    }
    return group
  }

  /// Gives back a group whose entries are in no list.
  func discard(_ group: EntryGroup) { group.recycle(pool) }

  /// Publishes the group in one step; the outcomes are those of `acquireSlow`.
  func publish(_ group: EntryGroup, mayWait: Bool) -> Outcome {
    let levels = header.pointee.topLevel + 1
    return withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 4 * levels) { words in
      words.initialize(repeating: 0)
      let shards = LevelShards(words: UnsafeMutableBufferPointer(rebasing: words[..<(2 * levels)]))
      let more = LevelShards(words: UnsafeMutableBufferPointer(rebasing: words[(2 * levels)...]))
      group.visitAll { entry in
        let level = level(of: entry.range)
        markInUse(level)
        homes(level, entry.range).visitAll { shards.insert(level, index(of: $0, level)) }
      }
      while true {
        lock(shards)
        forEachHome(of: group) { $0.raise() }
        if !isOpen {
          forEachHome(of: group) { $0.lower() }
          unlock(shards)
          return .moved
        }
        if !findOccupied(group, besides: shards, more) {
          return decide(group, shards, mayWait: mayWait)
        }
        forEachHome(of: group) { $0.lower() }
        unlock(shards)
        // The set only grows, so the loop ends.
        shards.formUnion(more)
      }
    }
  }

  /// Examines what is latched, publishes or not, and lets go.
  private func decide(
    _ group: EntryGroup, _ shards: LevelShards, mayWait: Bool
  ) -> Outcome {
    var isFree = true
    group.visitAll { entry in
      if !isFree { return }
      var examination = Examination(self, entry, .look)
      forEach(shards) { examination.examine($0) }
      if examination.isOver { isFree = false }
    }
    if !isFree, !mayWait {
      forEachHome(of: group) { $0.lower() }
      unlock(shards)
      return .refused
    }
    let waits = !isFree && isQueued(group, shards)
    group.visitAll { entry in
      let level = level(of: entry.range)
      link(entry, level, homes(level, entry.range))
    }
    forEach(shards) { $0.checkInvariants(pending: 0) }
    unlock(shards)
    return waits ? .queued : .granted
  }

  /// Puts the group behind somebody who is in front of one of its ranges, if there is anybody. As in `acquireSlow`: with
  /// nobody in front it is granted without a stamp.
  private func isQueued(_ group: EntryGroup, _ shards: LevelShards) -> Bool {
    // One stamp for all: of two groups one is behind the other with every range.
    group.prepareToWait(stamp: nextStamp(), Self.unpassable)
    var isQueued = false
    group.visitAll { entry in
      if isQueued { return }
      var examination = Examination(self, entry, .queue, waiter: group.waiter)
      forEach(shards) { examination.examine($0) }
      isQueued = examination.isOver
    }
    if !isQueued { group.visitAll { $0.pointer.pointee.state.store(0, ordering: .relaxed) } }
    return isQueued
  }

  /// Finds the occupied shards that are not in `shards` and could hold a conflict; true if there are. Needs the
  /// latches of `shards` and raised counts.
  private func findOccupied(
    _ group: EntryGroup, besides shards: LevelShards, _ more: LevelShards
  ) -> Bool {
    var found = false
    group.visitAll { entry in
      let range = entry.range
      let level = level(of: range)
      // Clears facts, then looks at counts.
      _ = occupiedCoarser(level, range)
      let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
      for other in 0...header.pointee.topLevel where inUse >> UInt64(other) & 1 != 0 {
        forEachIndex(of: range, other) { index in
          if shards.contains(other, index) || shard(other, index: index).count == 0 { return }
          more.insert(other, index)
          found = true
        }
      }
    }
    return found
  }

  /// Calls `body` with each shard's index that a granule with keys of `range` hashes to, perhaps twice.
  private func forEachIndex(of range: KeyRange, _ level: Int, _ body: (Int) -> Void) {
    let shift = shift(level)
    let first = Self.granule(range.first, shift)
    let last = Self.granule(range.last, shift)
    if last - first >= UInt64(Self.shardCount) {
      for index in 0..<Self.shardCount { body(index) }
    } else {
      for granule in first...last { body(Self.shardIndex(granule)) }
    }
  }

  private func forEachHome(of group: EntryGroup, _ body: (ShardRef) -> Void) {
    group.visitAll { homes(level(of: $0.range), $0.range).visitAll(body) }
  }

  private func index(of shard: ShardRef, _ level: Int) -> Int {
    (shard.raw - self.shard(level, index: 0).raw) / nodeStride
  }

  private func lock(_ shards: LevelShards) { forEach(shards) { $0.lock(adding: 0) } }

  private func unlock(_ shards: LevelShards) { forEach(shards) { $0.unlock(removing: 0) } }

  /// In latching order.
  private func forEach(_ shards: LevelShards, _ body: (ShardRef) -> Void) {
    for level in (0...header.pointee.topLevel).reversed() {
      for half in 0..<2 {
        var rest = shards.words[2 * level + half]
        while rest != 0 {
          body(shard(level, index: half * 64 + rest.trailingZeroBitCount))
          rest &= rest - 1
        }
      }
    }
  }
}

/// A set of shards of all levels: two words of bits a level.
private struct LevelShards {
  let words: UnsafeMutableBufferPointer<UInt64>

  func insert(_ level: Int, _ index: Int) {
    words[2 * level + index / 64] |= 1 << UInt64(index % 64)
  }

  func formUnion(_ other: LevelShards) {
    for place in words.indices { words[place] |= other.words[place] }
  }

  func contains(_ level: Int, _ index: Int) -> Bool {
    words[2 * level + index / 64] >> UInt64(index % 64) & 1 != 0
  }
}
