// SPDX-License-Identifier: Apache-2.0
//
// A request in search of what it conflicts with.
//
// Guarantee: what stands in front is found in every shard that is examined.
// Mechanism: a search of the tree under its latch.
// Cost: about logarithmic in the shard's entries; an upgrade looks at every reader of its keys.

/// One request looking at others, until it meets one that it has to wait for.
struct Examination {
  enum Purpose {
    /// Is there a conflict? Changes nothing.
    case look
    /// Queue behind the first that stands in front.
    case queue
    /// `entry` waits for a reader that holds to become a writer: queue behind the first reader that holds, stand in
    /// front of those that wait.
    case upgrade
    /// `entry` is the reader, and queues nowhere.
    case tryUpgrade
  }

  let directory: Directory
  let entry: EntryRef
  let purpose: Purpose
  /// What is put on the stack of who stands in front: `entry`, or what waits for several ranges.
  let waiter: EntryRef
  /// While finer levels are scanned: the granule that the scan is about.
  var watched = KeyRange.all
  /// Whether an entry overlapped the watched granule, conflicting or not.
  var sawWatched = false
  /// Whether there is a conflict; if it is one to wait for, `waiter` is on its stack, and others may have it.
  var isOver = false

  init(
    _ directory: Directory, _ entry: EntryRef, _ purpose: Purpose, waiter: EntryRef? = nil
  ) {
    self.directory = directory
    self.entry = entry
    self.purpose = purpose
    self.waiter = waiter ?? entry
  }

  /// What is in no way in its own: the request, or the hold that it is to change.
  private var own: EntryRef { purpose == .upgrade ? entry.upgradedHold : entry }

  mutating func watch(_ keys: KeyRange) {
    watched = keys
    sawWatched = false
  }

  /// Looks at one latched shard.
  mutating func examine(_ shard: ShardRef) {
    if isOver { return }
    let tree = shard.tree
    let range = entry.range
    let mode = entry.pointer.pointee.mode
    // Perhaps nobody is in the stripes; if somebody is, nobody comes any more.
    if mode == .write, let standing = shard.readers.pointee.standing,
      EntryRef(standing).range.overlaps(range)
    {
      directory.closeStripes(shard)
    }
    if tree.pointee.overlaps(watched) { sawWatched = true }
    switch purpose {
    case .look:
      isOver =
        tree.pointee.hasConflict(range, mode)
        && (directory.header.pointee.mostPasses == 0 || !directory.passWaiters(shard, range, mode))
    case .queue:
      if let blocker = tree.pointee.lastBlocker(of: range, mode, entry.waiting.pointee.stamp) {
        blocker.push(waiter, directory.pool)
        isOver = true
      }
    case .upgrade, .tryUpgrade:
      // A copy, because the closure may not change `self` beside its other uses.
      var isOver = false
      tree.pointee.forEach(overlapping: range) { other in
        if !stopsUpgrade(other) { return true }
        if purpose == .upgrade { other.push(entry, directory.pool) }
        isOver = true
        return false
      }
      self.isOver = isOver
    }
  }

  /// Whether an overlapping entry is a reader that holds. One of several ranges holds when all of them do: an upgrade never
  /// waits for who waits.
  private func stopsUpgrade(_ other: EntryRef) -> Bool {
    if other == own { return false }
    if other.pointer.pointee.state.load(ordering: .relaxed) & Entry.upgrading != 0 { return true }
    // A writer that does not hold waits behind us: it came later, or we would have waited for it.
    if other.pointer.pointee.mode == .write { return false }
    if !other.standInFront() { return true }
    directory.counters.add(.overtakings)
    return false
  }
}
