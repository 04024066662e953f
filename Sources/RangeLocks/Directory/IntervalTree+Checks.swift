// SPDX-License-Identifier: Apache-2.0
//
// What has to be true of a tree of entries.
//
// Cost: looks at every entry, or as deep as it is told.

extension IntervalTree {
  /// The number of entries; traps where order, balance or a summary is wrong. For tests and checked builds.
  ///
  /// - Parameter limit: subtrees of higher rank than this are not looked into; their entries count as one.
  func checked(limit: UInt64 = .max) -> UInt32 {
    root.map { Self.check($0, nil, limit) } ?? 0
  }

  private static func check(
    _ node: UnsafeMutablePointer<EntryLink>, _ parent: UnsafeMutablePointer<EntryLink>?,
    _ limit: UInt64
  ) -> UInt32 {
    precondition(node.pointee.parent == parent, "IntervalTree: a parent is wrong")
    if node.rank > limit { return 1 }
    let (left, right) = (node.pointee.left, node.pointee.right)
    let first = node.entry.pointer.pointee.first
    if let left { precondition(left.entry.pointer.pointee.first <= first, "IntervalTree: order") }
    if let right { precondition(right.entry.pointer.pointee.first >= first, "IntervalTree: order") }
    var count: UInt32 = 1
    if let left { count += check(left, node, limit) }
    if let right { count += check(right, node, limit) }
    for child in [left, right] {
      precondition((1...2).contains(node.rank &- child.rank), "IntervalTree: out of balance")
    }
    precondition(left != nil || right != nil || node.rank == 1, "IntervalTree: the rank of a leaf")
    let (greatest, tag) = (node.pointee.greatest, node.pointee.tag)
    var expected = node.entry.pointer.pointee.last
    if let left { expected = max(expected, left.pointee.greatest) }
    if let right { expected = max(expected, right.pointee.greatest) }
    precondition(greatest == expected, "IntervalTree: the greatest last key is wrong")
    let writer =
      UnsafeMutablePointer<EntryLink>.ownSummary(node.entry)
      | (left?.pointee.tag ?? 0) & EntryLink.exclusiveBit
      | (right?.pointee.tag ?? 0) & EntryLink.exclusiveBit
    precondition(tag & EntryLink.exclusiveBit == writer, "IntervalTree: the exclusive bit is wrong")
    let stamp = min(
      node.entry.stamp << EntryLink.stampShift,
      (left?.pointee.tag ?? .max) & EntryLink.stampMask,
      (right?.pointee.tag ?? .max) & EntryLink.stampMask)
    precondition(tag & EntryLink.stampMask == stamp, "IntervalTree: the least stamp is wrong")
    return count
  }
}
