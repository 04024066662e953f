// SPDX-License-Identifier: Apache-2.0
//
// Looking for the entries of a shard that are in the way of a request. Needs the latch of the shard.
//
// Cost: a path down for one overlap; for conflicts of readers, and for who is in front of a request that waits, the
// summaries of the nodes say where to look.

extension IntervalTree {
  /// Whether an entry overlaps `range`.
  @inline(__always)
  func overlaps(_ range: KeyRange) -> Bool {
    var cursor = root
    while let node = cursor {
      let entry = node.entry
      let isBehind = entry.pointer.pointee.first > range.last
      if !isBehind, entry.pointer.pointee.last >= range.first { return true }
      // If the left subtree reaches the range and yet has no overlap, then the entry that reaches begins behind the
      // range, and so does everything on the right: one path is enough.
      if let left = node.pointee.left, left.pointee.greatest >= range.first {
        cursor = left
      } else if isBehind {
        return false
      } else {
        cursor = node.pointee.right
      }
    }
    return false
  }

  /// Whether an entry conflicts with a request for `range` in `mode`.
  @inline(__always)
  func hasConflict(_ range: KeyRange, _ mode: LockMode) -> Bool {
    guard let root else { return false }
    if mode == .write { return overlaps(range) }
    return root.pointee.tag & EntryLink.exclusiveBit != 0
      && Self.overlapsConflict(root, range, mode)
  }

  @inline(never)
  private static func overlapsConflict(
    _ node: UnsafeMutablePointer<EntryLink>, _ range: KeyRange, _ mode: LockMode
  ) -> Bool {
    if node.pointee.greatest < range.first || node.pointee.tag & EntryLink.exclusiveBit == 0 {
      return false
    }
    if let left = node.pointee.left, overlapsConflict(left, range, mode) { return true }
    let entry = node.entry
    if entry.pointer.pointee.first > range.last { return false }
    if entry.pointer.pointee.mode.conflicts(with: mode), entry.pointer.pointee.last >= range.first {
      return true
    }
    if let right = node.pointee.right { return overlapsConflict(right, range, mode) }
    return false
  }

  /// The last entry in order that stands in front of a request with this stamp; nil if none does.
  ///
  /// Of requests for one range that is the one that came last before it.
  func lastBlocker(of range: KeyRange, _ mode: LockMode, _ stamp: UInt64) -> EntryRef? {
    root.flatMap { Self.lastBlocker(below: $0, range, mode, stamp) }
  }

  private static func lastBlocker(
    below node: UnsafeMutablePointer<EntryLink>, _ range: KeyRange, _ mode: LockMode,
    _ stamp: UInt64
  ) -> EntryRef? {
    if node.pointee.greatest < range.first
      || node.pointee.tag & EntryLink.stampMask >= stamp &<< EntryLink.stampShift
      || mode == .read && node.pointee.tag & EntryLink.exclusiveBit == 0
    {
      return nil
    }
    let entry = node.entry
    if entry.pointer.pointee.first <= range.last {
      if let right = node.pointee.right,
        let found = lastBlocker(below: right, range, mode, stamp)
      {
        return found
      }
      if entry.pointer.pointee.last >= range.first, entry.blocks(mode, stamp) { return entry }
    }
    return node.pointee.left.flatMap { lastBlocker(below: $0, range, mode, stamp) }
  }

  /// Calls `body` for each entry that overlaps `range`, in order, until it returns false.
  func forEach(overlapping range: KeyRange, _ body: (EntryRef) -> Bool) {
    if let root { _ = Self.visit(root, range, body) }
  }

  private static func visit(
    _ node: UnsafeMutablePointer<EntryLink>, _ range: KeyRange, _ body: (EntryRef) -> Bool
  ) -> Bool {
    if node.pointee.greatest < range.first { return true }
    if let left = node.pointee.left, !visit(left, range, body) { return false }
    let entry = node.entry
    if entry.pointer.pointee.first > range.last { return true }
    if entry.pointer.pointee.last >= range.first, !body(entry) { return false }
    if let right = node.pointee.right { return visit(right, range, body) }
    return true
  }
}
