// SPDX-License-Identifier: Apache-2.0
//
// Looking at the requests of other levels, and of the own.
//
// Guarantee: whoever conflicts and was published before is seen; see "Two looks" and "Facts" in docs/range-lock.md.
// Mechanism: own and coarser shards are latched by the caller; finer ones one at a time, unless a fact says that
// there is nothing.
// Cost: a search in each shard; up to 128 shards a finer level where no fact is known.
// Lock order inside: finer shards under the own.

import CRangeland
import Synchronization

extension Directory {
  func examine(_ homes: Homes, _ examination: inout Examination) {
    examination.examine(homes.lower)
    if let middle = homes.middle { examination.examine(middle) }
    if let upper = homes.upper { examination.examine(upper) }
  }

  /// Looks at the entries of finer levels, granule by granule, and records facts. Needs the own latches.
  func examineFiner(_ level: Int, _ homes: Homes, _ examination: inout Examination) {
    for granule in homes.firstGranule...homes.lastGranule {
      examineBelow(level, granule, &examination)
    }
  }

  private func examineBelow(_ level: Int, _ granule: UInt64, _ examination: inout Examination) {
    let below = (UInt64(1) << UInt64(level)) - 1
    if examination.isOver
      || header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent) & below == 0
      || isKnownEmptyBelow(level, granule)
    {
      return
    }
    let fact = fact(level, granule)
    // Set before the scan: who publishes behind the scan finds it and clears it.
    _ = fact.pointee.exchange(granule &+ 1, ordering: .sequentiallyConsistent)
    examination.watch(Self.keys(ofGranule: granule, shift(level)))
    var rest = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent) & below
    while rest != 0, !examination.isOver {
      let finer = 63 - rest.leadingZeroBitCount
      rest ^= 1 << UInt64(finer)
      examineShards(finer, &examination)
    }
    if examination.sawWatched || examination.isOver {
      // Not empty, or not known: only a fact that survived a complete scan stays.
      _ = fact.pointee.compareExchange(
        expected: granule &+ 1, desired: 0, ordering: .sequentiallyConsistent)
    }
  }

  /// Looks at every shard of a finer level that a granule inside the watched keys hashes to.
  private func examineShards(_ level: Int, _ examination: inout Examination) {
    let shift = shift(level)
    let first = Self.granule(examination.watched.first, shift)
    let last = Self.granule(examination.watched.last, shift)
    var shards = ShardSet()
    if last - first >= UInt64(Self.shardCount) {
      shards.insertAll()
    } else {
      for granule in first...last { shards.insert(Self.shardIndex(granule)) }
    }
    while !examination.isOver, let index = shards.popFirst() {
      let shard = shard(level, index: index)
      // Zero: whoever adds here later sees our count or our fact ("Two looks").
      if shard.count == 0 { continue }
      shard.lock(adding: 0)
      examination.examine(shard)
      shard.unlock(removing: 0)
    }
  }
}

/// A set of shards of one level.
private struct ShardSet {
  private var low: UInt64 = 0
  private var high: UInt64 = 0

  mutating func insert(_ index: Int) {
    if index < 64 { low |= 1 << UInt64(index) } else { high |= 1 << UInt64(index - 64) }
  }

  mutating func insertAll() { (low, high) = (.max, .max) }

  mutating func popFirst() -> Int? {
    if low != 0 {
      defer { low &= low - 1 }
      return low.trailingZeroBitCount
    }
    if high != 0 {
      defer { high &= high - 1 }
      return 64 + high.trailingZeroBitCount
    }
    return nil
  }
}
