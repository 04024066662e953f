// SPDX-License-Identifier: Apache-2.0
//
// Asking for a range: look at everything that can conflict, decide, publish, in one step under latches.
//
// Guarantee: of two conflicting requests the one that publishes later sees the other, and waits behind it; a
// request that must not wait fails only when a conflicting request is there, and leaves no trace.
// Mechanism: raise the count of the own shards with their latches; read the summaries of the other levels; when
// they say "nothing", publish at once. Otherwise latch the coarser shards first, then the own, and walk the
// finer ones one at a time while both are held, up to the first conflict: behind that one we wait.
// Cost: uncontended one compare-and-swap and one exchange a home shard, a load or two a coarser level in use.
// Why it is right: docs/range-lock.md.

import CRangeland
import Synchronization

/// What became of a request. An entry is returned for the first two.
enum Outcome: UInt8 {
  case granted
  /// Published, behind others: `wait` for it.
  case queued
  /// Not published: it would have had to wait.
  case refused
  /// Not published: no memory for a second block now.
  case noMemory
  /// Not published: the lock is not in the directory's time. `leaveWhole`, then ask again.
  case moved
}

extension Directory {
  // MARK: Fast

  /// Grants the range if no other request has to be looked at more closely; nil decides nothing.
  @inline(__always)
  func acquireFast(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef) -> Bool {
    let level = level(of: range)
    markInUse(level)
    let homes = homes(level, range)
    if homes.middle != nil { return false }
    homes.lock(adding: 1)
    if !isInDirectoryTime || conflicts(homes, range, mode) || !othersAreClear(level, homes, range) {
      homes.unlock(removing: 1)
      return false
    }
    entry.initialize(range, mode, token: 0)
    entry.tail.pointee.extra = nil
    publish(entry, level, homes)
    homes.unlock(removing: 0)
    return true
  }

  /// Whether the directory is the place to ask, and by the fast ways too. For a decision the caller has
  /// raised its counts, and looks at those of other levels afterwards: see "Whole-lock mode" in docs/range-lock.md.
  @inline(__always)
  var isInDirectoryTime: Bool {
    header.pointee.word.load(ordering: .sequentiallyConsistent) == WholeWord.directory
  }

  /// The same for the general ways, which are right for an observed lock.
  @inline(__always)
  var isOpen: Bool {
    WholeWord.isOpen(header.pointee.word.load(ordering: .sequentiallyConsistent))
  }

  /// Links the entry of a hold of whole-lock mode. Needs the word "switching", so that nobody else can
  /// publish, and there is nothing to look at; whoever comes later sees the entry as any other.
  func adopt(_ entry: EntryRef) {
    let level = level(of: entry.range)
    markInUse(level)
    let homes = homes(level, entry.range)
    homes.lock(adding: 1)
    // Clears the facts that the entry makes untrue.
    _ = occupiedCoarser(level, entry.range)
    // Range and mode stay untouched: the holder may be reading them.
    entry.pointer.pointee.state.store(0, ordering: .relaxed)
    entry.setSecondBlock(adoptedExtra)
    publish(entry, level, homes)
    homes.unlock(removing: 0)
  }

  /// Sets the level's bit before its first entry. Sequentially consistent: pairs with the look at
  /// `levelsInUse` that every request makes after it has raised its counts.
  @inline(__always)
  func markInUse(_ level: Int) {
    let bit = UInt64(1) &<< UInt64(level)
    if header.pointee.levelsInUse.load(ordering: .relaxed) & bit == 0 {
      header.pointee.levelsInUse.bitwiseOr(bit, ordering: .sequentiallyConsistent)
    }
  }

  /// Whether an entry in the latched home shards conflicts.
  @inline(__always)
  private func conflicts(_ homes: Homes, _ range: KeyRange, _ mode: LockMode) -> Bool {
    if homes.lower.tree.pointee.hasConflict(range, mode) { return true }
    if let upper = homes.upper { return upper.tree.pointee.hasConflict(range, mode) }
    return false
  }

  /// Whether the summaries say that no entry of another level can conflict. Needs the own latches, taken
  /// with raised counts: this is the look after the publication.
  @inline(__always)
  private func othersAreClear(_ level: Int, _ homes: Homes, _ range: KeyRange) -> Bool {
    // Pairs with `markInUse`.
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    if inUse == UInt64(1) &<< UInt64(level) { return true }
    var coarser = (inUse &>> UInt64(level)) &>> 1
    var other = level &+ 1
    while coarser != 0 {
      if coarser & 1 != 0 {
        let ancestors = self.homes(other, range)
        // In this order: facts, then counts. See "Facts" in docs/range-lock.md.
        forgetEmptyBelow(other, ancestors)
        if ancestors.isOccupied { return false }
      }
      coarser &>>= 1
      other &+= 1
    }
    if inUse & ((UInt64(1) &<< UInt64(level)) &- 1) == 0 { return true }
    // Two granules at most: `acquireFast` does not do three.
    return isKnownEmptyBelow(level, homes.firstGranule)
      && (homes.lastGranule == homes.firstGranule
        || isKnownEmptyBelow(level, homes.lastGranule))
  }

  /// Links the entry into the latched home shards.
  @inline(__always)
  func publish(_ entry: EntryRef, _ level: Int, _ homes: Homes) {
    link(entry, level, homes)
    homes.visitAll { $0.checkInvariants(pending: 0) }
  }

  /// `publish` without a look at the counts.
  @inline(__always)
  func link(_ entry: EntryRef, _ level: Int, _ homes: Homes) {
    // A waiting entry has it, and may be on somebody's stack already.
    let shape = shape(level, homes)
    if entry.pointer.pointee.shape != shape { entry.pointer.pointee.shape = shape }
    if homes.upper == nil { entry.tail.pointee.extra = homes.lower.raw }
    let stamp = entry.stamp
    homes.lower.tree.pointee.insert(entry.link0, entry, stamp: stamp)
    if let upper = homes.upper { publishMore(entry, homes, upper, stamp) }
  }

  @inline(never)
  func publishMore(_ entry: EntryRef, _ homes: Homes, _ upper: ShardRef, _ stamp: UInt64) {
    upper.tree.pointee.insert(entry.link1, entry, stamp: stamp)
    if let middle = homes.middle {
      middle.tree.pointee.insert(entry.link2, entry, stamp: stamp, isInSecondBlock: true)
    }
  }

  // MARK: Slow

  /// Decides and publishes under the latches of everything that the summaries do not exclude.
  ///
  /// With `mayWait` false the outcome is never `.queued` and an unsuccessful request changes nothing.
  @inline(never)
  func acquireSlow(
    _ range: KeyRange, _ mode: LockMode, _ entry: EntryRef, mayWait: Bool, mayBePassed: Bool = true
  ) -> Outcome {
    let level = level(of: range)
    markInUse(level)
    let homes = homes(level, range)
    // For the third home, and for waiting.
    let extra = homes.upper == nil ? nil : pool.take()
    if homes.upper != nil, extra == nil { return .noMemory }
    // The coarser levels whose shards we latch. It only grows, so the loop ends.
    var latched = occupiedCoarser(level, range)
    while true {
      lockCoarser(latched, range)
      homes.lock(adding: 1)
      // Now published as far as others can tell: look again, at the mode first.
      if !isOpen {
        homes.unlock(removing: 1)
        unlockCoarser(latched, range)
        if let extra { pool.give(extra) }
        return .moved
      }
      let late = occupiedCoarser(level, range) & ~latched
      if late == 0 { break }
      homes.unlock(removing: 1)
      unlockCoarser(latched, range)
      latched |= late
    }

    entry.initialize(range, mode, token: 0)
    noteSince(entry)
    entry.pointer.pointee.shape = shape(level, homes)
    entry.setSecondBlock(extra)
    var examination = Examination(self, entry, .look)
    examineAll(latched, level, homes, &examination)
    if examination.isOver, !mayWait {
      homes.unlock(removing: 1)
      unlockCoarser(latched, range)
      if let extra { pool.give(extra) }
      return .refused
    }
    if examination.isOver {
      // Our counts are up, and nobody has been asked yet: see "Stamps" in docs/range-lock.md.
      entry.waiting.pointee.stamp = nextStamp()
      let passes = mayBePassed ? 0 : Self.unpassable
      entry.pointer.pointee.state.store(Entry.stamped | passes | 1, ordering: .relaxed)
      examination = Examination(self, entry, .queue)
      examineAll(latched, level, homes, &examination)
      // Who was in front has ended, or given up. Without a stamp, as one that never waited: with it we would be behind
      // those with a smaller one that raised their counts after we looked for them. See "Stamps" in docs/range-lock.md.
      if !examination.isOver { entry.pointer.pointee.state.store(0, ordering: .relaxed) }
    }
    publish(entry, level, homes)
    homes.unlock(removing: 0)
    unlockCoarser(latched, range)
    return examination.isOver ? .queued : .granted
  }

  /// A number greater than any before. Orders whoever raised its counts and then takes one behind those that did
  /// so before: releases their counts to us.
  func nextStamp() -> UInt64 {
    stamps.pointee.wrappingAdd(1, ordering: .acquiringAndReleasing).newValue
  }

  func shape(_ level: Int, _ homes: Homes) -> UInt8 {
    UInt8(truncatingIfNeeded: level &<< 2) | homes.count
  }

  /// Examines latched coarser levels, latched homes, and the finer levels.
  func examineAll(
    _ latched: UInt64, _ level: Int, _ homes: Homes, _ examination: inout Examination
  ) {
    examineCoarser(latched, examination.entry.range, &examination)
    examine(homes, &examination)
    examineFiner(level, homes, &examination)
  }

  /// Clears the facts above the range and returns the coarser levels, as bits, that have entries there.
  /// Needs the own latches for a decision; without them it is a hint.
  func occupiedCoarser(_ level: Int, _ range: KeyRange) -> UInt64 {
    // Pairs with `markInUse`.
    let inUse = header.pointee.levelsInUse.load(ordering: .sequentiallyConsistent)
    var occupied: UInt64 = 0
    for other in (level + 1)..<(header.pointee.topLevel + 2) where inUse >> UInt64(other) & 1 != 0 {
      let ancestors = self.homes(other, range)
      forgetEmptyBelow(other, ancestors)
      if ancestors.isOccupied { occupied |= 1 << UInt64(other) }
    }
    return occupied
  }

  func lockCoarser(_ levels: UInt64, _ range: KeyRange) {
    var rest = levels
    while rest != 0 {
      let level = 63 - rest.leadingZeroBitCount
      rest ^= 1 << UInt64(level)
      homes(level, range).lock(adding: 0)
    }
  }

  func unlockCoarser(_ levels: UInt64, _ range: KeyRange) {
    var rest = levels
    while rest != 0 {
      let level = rest.trailingZeroBitCount
      rest ^= 1 << UInt64(level)
      homes(level, range).unlock(removing: 0)
    }
  }

  func examineCoarser(
    _ levels: UInt64, _ range: KeyRange, _ examination: inout Examination
  ) {
    var rest = levels
    while rest != 0 {
      let level = rest.trailingZeroBitCount
      rest ^= 1 << UInt64(level)
      examine(homes(level, range), &examination)
    }
  }
}
