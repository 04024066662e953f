// SPDX-License-Identifier: Apache-2.0
//
// The short way for a request inside one granule of the lowest level: the usual case.
//
// Guarantee: as the general way, whose steps it takes in the same order (docs/range-lock.md, "Acquire").
// Mechanism: everything that needs a call, or a second latch, is left to the general way: nil or a call in last
// place. So no register has to be saved.
// Cost: about 60 instructions to acquire and 40 to release, one compare-and-swap each.

import CRangeland
import Synchronization

extension Directory {
  /// Grants `range` if it is easily seen to be free; nil decides nothing and leaves nothing behind.
  @usableFromInline @inline(never)
  func acquireNarrow(
    _ range: KeyRange, _ mode: LockMode, _ cache: UnsafeMutablePointer<NodeCache>
  ) -> EntryRef? {
    let granule = Self.granule(range.first, header.pointee.granuleShift)
    if Self.granule(range.last, header.pointee.granuleShift) != granule { return nil }
    let shard = shard(0, index: Self.shardIndex(granule))
    // A plain look first: there are none, nearly always.
    if mode == .read, shard.stripeSlot.pointee.load(ordering: .relaxed) != 0 {
      if !cache.pointee.isNoSampleDue { return acquireStripeSampling(range, shard, cache) }
      if let stripe = enterStripe(range, shard, thread: Int(thread(cache))) {
        cache.pointee.counts &+= NodeCache.oneRequest
        return stripe
      }
    }
    guard let block = cache.pointee.head, cache.pointee.isNoSampleDue else { return nil }
    #if RANGELAND_CHECKS
      if NodePool.isToRefuse() { return nil }
    #endif
    let entry = EntryRef(block)
    // Publishes; see `ShardRef.lock`.
    if !shard.tryLockEmpty() { return acquireNarrowBeside(range, mode, cache, shard) }
    cache.pointee.head = block.load(as: UnsafeMutableRawPointer?.self)
    cache.pointee.countTakeForRequest()
    // Pairs with the changes of mode, then with `markInUse`.
    if !isInDirectoryTime
      || header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent) != 1
    {
      shard.tree.pointee.removeLast()
      return acquireNarrowLatched(range, mode, entry, shard, cache)
    }
    entry.initializeNarrow(range, mode, shard, thread(cache))
    shard.tree.pointee.insertFirst(entry.link0, last: range.last, mode)
    shard.checkInvariants(pending: 0)
    if shard.unlockHasSleepers(removing: 0) { return wake(shard, entry) }
    return entry
  }

  /// Enters a stripe after a sample: the general way would write the shard's line, which the readers share.
  @inline(never)
  private func acquireStripeSampling(
    _ range: KeyRange, _ shard: ShardRef, _ cache: UnsafeMutablePointer<NodeCache>
  ) -> EntryRef? {
    cache.pointee.counts &+= NodeCache.oneRequest
    sample()
    return enterStripe(range, shard, thread: Int(thread(cache)))
  }

  /// The same where the shard has entries.
  @inline(never)
  private func acquireNarrowBeside(
    _ range: KeyRange, _ mode: LockMode, _ cache: UnsafeMutablePointer<NodeCache>, _ shard: ShardRef
  ) -> EntryRef? {
    guard let block = cache.pointee.head, shard.tryLock(adding: 1) else { return nil }
    let entry = EntryRef(block)
    cache.pointee.head = block.load(as: UnsafeMutableRawPointer?.self)
    cache.pointee.countTakeForRequest()
    return acquireNarrowLatched(range, mode, entry, shard, cache)
  }

  /// Goes on where other levels are in use or the shard is not empty. Needs the latch; the count is raised.
  @inline(never)
  private func acquireNarrowLatched(
    _ range: KeyRange, _ mode: LockMode, _ entry: EntryRef, _ shard: ShardRef,
    _ cache: UnsafeMutablePointer<NodeCache>
  ) -> EntryRef? {
    // Pairs with the changes of mode, then with `markInUse`.
    if !isInDirectoryTime { return giveUpNarrow(entry, shard) }
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    if inUse & 1 == 0 { return giveUpNarrow(entry, shard) }
    var coarser = inUse &>> 1
    var level = 1
    while coarser != 0 {
      if coarser & 1 != 0 {
        // A granule of the lowest level is in one of every other.
        let granule = Self.granule(range.first, shift(level))
        // In this order: facts, then counts. See "Facts" in docs/range-lock.md.
        forget(level, granule)
        if self.shard(level, index: Self.shardIndex(granule)).count != 0 {
          return giveUpNarrow(entry, shard)
        }
      }
      coarser &>>= 1
      level &+= 1
    }
    entry.initializeNarrow(range, mode, shard, thread(cache))
    if mode == .write {
      if !shard.tree.pointee.insertUnlessOverlapping(entry.link0, entry) {
        if header.pointee.mostPasses == 0 || !passWaiters(shard, range, mode) {
          return giveUpNarrow(entry, shard)
        }
        shard.tree.pointee.insert(entry.link0, entry)
      }
    } else {
      if shard.tree.pointee.hasConflict(range, mode),
        header.pointee.mostPasses == 0 || !passWaiters(shard, range, mode)
      {
        return giveUpNarrow(entry, shard)
      }
      if mode == .read { noteMeeting(range, shard) }
      shard.tree.pointee.insert(entry.link0, entry)
    }
    shard.checkInvariants(pending: 0)
    if shard.unlockHasSleepers(removing: 0) { return wake(shard, entry) }
    return entry
  }

  /// Index + 1 of the thread that a cache belongs to.
  @inline(__always)
  private func thread(_ cache: UnsafeMutablePointer<NodeCache>) -> UInt16 {
    let offset = UnsafeRawPointer(cache) - UnsafeRawPointer(pool.caches)
    return UInt16(truncatingIfNeeded: offset / nodeStride) &+ 1
  }

  @inline(never)
  private func giveUpNarrow(_ entry: EntryRef, _ shard: ShardRef) -> EntryRef? {
    shard.unlock(removing: 1)
    pool.give(entry.raw)
    return nil
  }

  @inline(never)
  private func wake(_ shard: ShardRef, _ entry: EntryRef) -> EntryRef {
    shard.wakeSlow()
    return entry
  }

  /// Ends a hold that is in the directory, or on its way there.
  @usableFromInline @inline(never)
  func releaseFromDirectory(_ entry: EntryRef, _ cache: UnsafeMutablePointer<NodeCache>) {
    // Acquires what the thread wrote that took our entry over, if one did.
    if header.pointee.word.load(ordering: .acquiring) != WholeWord.directory
      || entry.pointer.pointee.shape & 3 != 1
    {
      return releaseGeneral(entry)
    }
    let shard = entry.onlyHome
    // The usual case: we are the only entry, and leave an empty shard behind.
    if !shard.tryRemoveOnly() { return releaseBeside(entry, shard) }
    entry.checkAndClearStamp()
    // Pushes happened under the latch, which nobody had when we left: a plain look sees them all.
    if entry.tail.pointee.dependents.load(ordering: .relaxed) != nil {
      return releaseUnlinked(entry, wake: nil)
    }
    pool.give(entry.raw, cache)
  }

  @inline(never)
  private func releaseBeside(_ entry: EntryRef, _ shard: ShardRef) {
    shard.lock(adding: 0)
    shard.tree.pointee.remove(entry.link0)
    entry.checkAndClearStamp()
    shard.checkInvariants(pending: 1)
    if shard.unlockHasSleepers(removing: 1) { return releaseUnlinked(entry, wake: shard) }
    if entry.tail.pointee.dependents.load(ordering: .relaxed) != nil {
      return releaseUnlinked(entry, wake: nil)
    }
    pool.give(entry.raw)
  }

  @inline(never)
  private func releaseUnlinked(_ entry: EntryRef, wake shard: ShardRef?) {
    if let shard { shard.wakeSlow() }
    letGoDependents(entry)
    pool.give(entry.raw)
  }

  @inline(never)
  private func releaseGeneral(_ entry: EntryRef) {
    if !WholeWord.isOpen(header.pointee.word.load(ordering: .acquiring)) { awaitSwitch() }
    if isObserved { tellReleased(entry) }
    // Not before: the entry of a hold of whole-lock mode gets its shape when it is taken over.
    if entry.pointer.pointee.shape == 0 { return leaveStripe(entry) }
    release(entry)
  }
}
