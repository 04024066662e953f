// SPDX-License-Identifier: Apache-2.0
//
// Asking for a range: look at everything that can conflict, decide, publish, in one step under latches.
//
// Guarantee: of two conflicting requests the one that publishes later sees the other, and waits behind it; a
// request that must not wait fails only when a conflicting request is there, and leaves no trace.
// Mechanism: raise the count of the own shards with their latches; read the summaries of the other levels; when
// they say "nothing", publish at once. Otherwise latch the coarser shards first, then the own, and walk the
// finer ones one at a time while both are held.
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
  /// Not published: no memory for an edge now. Edges made before may still count: wait them out.
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
    publish(entry, level, homes)
    homes.unlock(removing: 0)
    return true
  }

  /// Whether the directory is the place to ask, and by the fast ways too. For a decision the caller has raised its counts, and looks at
  /// those of other levels afterwards: see "Whole-lock mode" in docs/range-lock.md.
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
    entry.tail.pointee.extra = adoptedExtra
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
    entry.pointer.pointee.thread = UInt16(truncatingIfNeeded: rl_thread_index() &+ 1)
    entry.pointer.pointee.shape = UInt8(truncatingIfNeeded: level &<< 2) | homes.count
    if homes.upper == nil { entry.tail.pointee.extra = homes.lower.raw }
    homes.lower.tree.pointee.insert(entry.link0, entry)
    if let upper = homes.upper { publishMore(entry, homes, upper) }
  }

  @inline(never)
  func publishMore(_ entry: EntryRef, _ homes: Homes, _ upper: ShardRef) {
    upper.tree.pointee.insert(entry.link1, entry)
    if let middle = homes.middle {
      middle.tree.pointee.insert(entry.link2, entry)
    }
  }

  // MARK: Slow

  /// Decides and publishes under the latches of everything that the summaries do not exclude.
  ///
  /// With `mayWait` false the outcome is never `.queued` and an unsuccessful request changes nothing.
  @inline(never)
  func acquireSlow(
    _ range: KeyRange, _ mode: LockMode, _ entry: EntryRef, mayWait: Bool
  ) -> Outcome {
    let level = level(of: range)
    markInUse(level)
    let homes = homes(level, range)
    let extra = homes.middle == nil ? nil : pool.take()
    if homes.middle != nil, extra == nil { return .noMemory }
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

    // Our token keeps the count from zero while edges come and are already dropped again.
    entry.initialize(range, mode, token: 1)
    entry.tail.pointee.extra = extra
    var examination = Examination(entry: entry, mayWait: mayWait)
    examineCoarser(latched, range, &examination)
    examine(homes, &examination)
    examineFiner(level, homes, &examination)

    let outcome = examination.outcome
    if examination.isOver {
      entry.pointer.pointee.state.wrappingSubtract(1, ordering: .relaxed)
      homes.unlock(removing: 1)
      unlockCoarser(latched, range)
      if let extra { pool.give(extra) }
      return outcome
    }
    publish(entry, level, homes)
    // Acquires the sections of blockers that have gone since.
    let old = entry.pointer.pointee.state.wrappingSubtract(1, ordering: .acquiringAndReleasing)
      .oldValue
    homes.unlock(removing: 0)
    unlockCoarser(latched, range)
    return old == 1 ? .granted : .queued
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

  func examine(_ homes: Homes, _ examination: inout Examination) {
    examination.examine(homes.lower, pool)
    if let middle = homes.middle { examination.examine(middle, pool) }
    if let upper = homes.upper { examination.examine(upper, pool) }
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
      examination.examine(shard, pool)
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

/// One request looking at others: queues it behind each one that it conflicts with.
struct Examination {
  let entry: EntryRef
  let mayWait: Bool
  /// Whether `entry` is a reader that holds, and wants to be a writer.
  var isUpgrade = false
  /// While finer levels are scanned: the granule that the scan is about.
  var watched = KeyRange.all
  /// Whether an entry overlapped the watched granule, conflicting or not.
  var sawWatched = false
  /// `.queued` means "at least one edge so far"; the owner's token says whether it is still true.
  var outcome = Outcome.granted

  init(entry: EntryRef, mayWait: Bool) {
    self.entry = entry
    self.mayWait = mayWait
  }

  /// Whether nothing that is still to be seen can change the outcome.
  var isOver: Bool { outcome == .refused || outcome == .noMemory }

  mutating func watch(_ keys: KeyRange) {
    watched = keys
    sawWatched = false
  }

  /// Looks at one latched shard.
  mutating func examine(_ shard: ShardRef, _ pool: NodePool) {
    if isOver { return }
    if shard.tree.pointee.overlaps(watched) { sawWatched = true }
    let mode = entry.pointer.pointee.mode
    // A copy, because the closure may not change `self` beside its other uses.
    var outcome = outcome
    shard.tree.pointee.forEach(overlapping: entry.range) { other in
      if isUpgrade {
        outcome = examineForUpgrade(other, outcome, pool)
        return outcome != .refused && outcome != .noMemory
      }
      if !other.pointer.pointee.mode.conflicts(with: mode) { return true }
      // A cancelled waiter will never hold. It sets the flag before it unlinks; missing it is harmless.
      if other.pointer.pointee.state.load(ordering: .relaxed) & Entry.cancelled != 0 { return true }
      if !mayWait {
        outcome = .refused
        return false
      }
      guard let block = pool.take() else {
        outcome = .noMemory
        return false
      }
      other.addDependent(entry, block)
      outcome = .queued
      return true
    }
    self.outcome = outcome
  }

  /// Looks at one overlapping entry for a reader that becomes a writer; returns the new outcome.
  private func examineForUpgrade(
    _ other: EntryRef, _ outcome: Outcome, _ pool: NodePool
  ) -> Outcome {
    if other == entry { return outcome }
    let isUpgrading =
      other.pointer.pointee.state.load(ordering: .relaxed) & Entry.upgrading != 0
    if !isUpgrading {
      // A writer that does not hold waits behind us: it came later, or we would have waited for it.
      if other.pointer.pointee.mode == .write { return outcome }
      switch entry.holdBack(other, pool) {
      case true?: return outcome
      case nil: return .noMemory
      case false?: break
      }
    }
    // A reader that holds.
    if !mayWait { return .refused }
    guard let block = pool.take() else { return .noMemory }
    other.addDependent(entry, block)
    return .queued
  }
}
