// SPDX-License-Identifier: Apache-2.0
//
// The requests of a shard, by their first key, with the greatest last key below each node.
//
// Guarantee: an overlap is found, an entry added or removed in a number of steps that grows with the logarithm of
// the number of entries. Equal first keys are allowed.
// Mechanism: a height-balanced binary tree through the entries' own links; each node knows the greatest last
// key, the least stamp (`Waiting`), and whether there is an entry in its subtree that is no plain reader.
// Cost: 40 bytes in the entry; no allocation.
// Source: Adelson-Velsky, Landis (1962); Cormen et al., "Introduction to Algorithms", interval trees.

/// One membership of an entry in a tree; protected by the latch of the tree.
struct EntryLink {
  var left: UnsafeMutablePointer<EntryLink>?
  var right: UnsafeMutablePointer<EntryLink>?
  var parent: UnsafeMutablePointer<EntryLink>?
  /// The greatest last key of the subtree.
  var greatest: UInt64
  /// The least stamp of the subtree, above `stampShift`; below it the height, whether an entry of the subtree is
  /// no plain reader, and whether the link lies in the entry's second block.
  var tag: UInt64

  static let heightMask: UInt64 = 63
  static let exclusiveBit: UInt64 = 64
  static let secondBlockBit: UInt64 = 128
  static let stampShift: UInt64 = 8
  static let stampMask: UInt64 = ~255
}

extension UnsafeMutablePointer where Pointee == EntryLink {
  /// The entry that this link is a membership of.
  @inline(__always)
  var entry: EntryRef {
    // Blocks are aligned to their size.
    let block = UnsafeMutableRawPointer(
      bitPattern: UInt(bitPattern: self) & ~UInt(nodeStride - 1)
    ).unsafelyUnwrapped
    if pointee.tag & EntryLink.secondBlockBit == 0 { return EntryRef(block) }
    return EntryRef.owner(ofSecondBlock: block)
  }

  @inline(__always)
  var height: UInt64 { pointee.tag & EntryLink.heightMask }

  /// The subtree's summary without its children.
  @inline(__always)
  fileprivate static func ownSummary(_ entry: EntryRef) -> UInt64 {
    entry.pointer.pointee.mode != .read ? EntryLink.exclusiveBit : 0
  }

  /// Lowers the least stamp.
  @inline(__always)
  fileprivate func lower(toStamp stamp: UInt64) {
    let own = pointee.tag & ~EntryLink.stampMask
    let shifted = stamp &<< EntryLink.stampShift
    if pointee.tag &- own > shifted { pointee.tag = own | shifted }
  }

  /// Computes height and summaries from the children's.
  @inline(__always)
  fileprivate func update() {
    let entry = entry
    var greatest = entry.pointer.pointee.last
    var summary = Self.ownSummary(entry) | pointee.tag & EntryLink.secondBlockBit
    var stamp = entry.stamp &<< EntryLink.stampShift
    var height: UInt64 = 0
    if let left = pointee.left {
      greatest = Swift.max(greatest, left.pointee.greatest)
      summary |= left.pointee.tag & EntryLink.exclusiveBit
      stamp = Swift.min(stamp, left.pointee.tag & EntryLink.stampMask)
      height = left.height
    }
    if let right = pointee.right {
      greatest = Swift.max(greatest, right.pointee.greatest)
      summary |= right.pointee.tag & EntryLink.exclusiveBit
      stamp = Swift.min(stamp, right.pointee.tag & EntryLink.stampMask)
      height = Swift.max(height, right.height)
    }
    pointee.greatest = greatest
    pointee.tag = stamp | summary | (height &+ 1)
  }

  /// Height of the left subtree minus that of the right.
  @inline(__always)
  fileprivate var balance: Int {
    Int(truncatingIfNeeded: pointee.left?.height ?? 0)
      &- Int(truncatingIfNeeded: pointee.right?.height ?? 0)
  }
}

/// A tree of entries. Zeroed memory is an empty tree. All of it needs the latch of its shard.
struct IntervalTree {
  var root: UnsafeMutablePointer<EntryLink>?

  // MARK: Looking

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

  // MARK: Changing

  /// Whether `link` is the only one.
  @inline(__always)
  func isOnly(_ link: UnsafeMutablePointer<EntryLink>) -> Bool {
    root == link && link.height == 1
  }

  /// Adds `link` to an empty tree.
  @inline(__always)
  mutating func insertFirst(
    _ link: UnsafeMutablePointer<EntryLink>, last: UInt64, _ mode: LockMode
  ) {
    link.initialize(
      to: EntryLink(
        left: nil, right: nil, parent: nil, greatest: last,
        tag: (mode == .read ? 0 : EntryLink.exclusiveBit) | 1))
    root = link
  }

  /// Takes out the only entry.
  @inline(__always)
  mutating func removeLast() { root = nil }

  /// Adds `link` as a membership of `entry`, whose stamp is given.
  @inline(__always)
  mutating func insert(
    _ link: UnsafeMutablePointer<EntryLink>, _ entry: EntryRef, stamp: UInt64 = 0,
    isInSecondBlock: Bool = false
  ) {
    let first = entry.pointer.pointee.first
    let last = entry.pointer.pointee.last
    let summary = UnsafeMutablePointer<EntryLink>.ownSummary(entry)
    var parent: UnsafeMutablePointer<EntryLink>?
    var isLeft = false
    var cursor = root
    while let node = cursor {
      parent = node
      if last > node.pointee.greatest { node.pointee.greatest = last }
      if node.pointee.tag & summary != summary { node.pointee.tag |= summary }
      node.lower(toStamp: stamp)
      isLeft = first < node.entry.pointer.pointee.first
      cursor = isLeft ? node.pointee.left : node.pointee.right
    }
    link.initialize(
      to: EntryLink(
        left: nil, right: nil, parent: parent, greatest: last,
        tag: stamp &<< EntryLink.stampShift | summary
          | (isInSecondBlock ? EntryLink.secondBlockBit : 0) | 1))
    guard let parent else {
      root = link
      return
    }
    if isLeft { parent.pointee.left = link } else { parent.pointee.right = link }
    // Beside a sibling nothing above becomes higher.
    if parent.height == 1 { retrace(from: parent, through: nil) }
  }

  /// Takes `link` out.
  @inline(__always)
  mutating func remove(_ link: UnsafeMutablePointer<EntryLink>) {
    if isOnly(link) { removeLast() } else { removeSlow(link) }
  }

  @inline(never)
  private mutating func removeSlow(_ link: UnsafeMutablePointer<EntryLink>) {
    guard let left = link.pointee.left, let right = link.pointee.right else {
      let child = link.pointee.left ?? link.pointee.right
      replace(link, by: child)
      child?.pointee.parent = link.pointee.parent
      retrace(from: link.pointee.parent, through: nil)
      return
    }
    // The next entry in order takes the place.
    var next = right
    while let lower = next.pointee.left { next = lower }
    var changed = next
    if next != right {
      let above = next.pointee.parent.unsafelyUnwrapped
      changed = above
      above.pointee.left = next.pointee.right
      next.pointee.right?.pointee.parent = above
      next.pointee.right = right
      right.pointee.parent = next
    }
    next.pointee.left = left
    left.pointee.parent = next
    replace(link, by: next)
    next.pointee.parent = link.pointee.parent
    // As if nothing had changed yet at this place; `retrace` compares with it.
    next.pointee.greatest = link.pointee.greatest
    next.pointee.tag =
      next.pointee.tag & EntryLink.secondBlockBit | link.pointee.tag & ~EntryLink.secondBlockBit
    retrace(from: changed, through: next)
  }

  /// Makes the summaries right after the entry of `link` changed its mode or its stamp.
  mutating func refresh(_ link: UnsafeMutablePointer<EntryLink>) {
    retrace(from: link, through: nil)
  }

  /// Updates and balances from `start` upwards, until nothing changes, but not before `must`.
  @inline(never)
  private mutating func retrace(
    from start: UnsafeMutablePointer<EntryLink>?, through must: UnsafeMutablePointer<EntryLink>?
  ) {
    var cursor = start
    var mayStop = must == nil
    while let node = cursor {
      let greatest = node.pointee.greatest
      let summary = node.pointee.tag & ~EntryLink.secondBlockBit
      node.update()
      let top = balanced(node)
      if node == must { mayStop = true }
      if mayStop, top.pointee.greatest == greatest,
        top.pointee.tag & ~EntryLink.secondBlockBit == summary
      {
        return
      }
      cursor = top.pointee.parent
    }
  }

  /// Rotates `node` if one side is two higher than the other; returns the node in its place.
  private mutating func balanced(
    _ node: UnsafeMutablePointer<EntryLink>
  ) -> UnsafeMutablePointer<EntryLink> {
    let balance = node.balance
    if balance > 1 {
      let left = node.pointee.left.unsafelyUnwrapped
      if left.balance < 0 { _ = rotateLeft(left) }
      return rotateRight(node)
    }
    if balance < -1 {
      let right = node.pointee.right.unsafelyUnwrapped
      if right.balance > 0 { _ = rotateRight(right) }
      return rotateLeft(node)
    }
    return node
  }

  /// The right child takes the node's place.
  private mutating func rotateLeft(
    _ node: UnsafeMutablePointer<EntryLink>
  ) -> UnsafeMutablePointer<EntryLink> {
    let top = node.pointee.right.unsafelyUnwrapped
    replace(node, by: top)
    top.pointee.parent = node.pointee.parent
    node.pointee.right = top.pointee.left
    top.pointee.left?.pointee.parent = node
    top.pointee.left = node
    node.pointee.parent = top
    node.update()
    top.update()
    return top
  }

  /// The left child takes the node's place.
  private mutating func rotateRight(
    _ node: UnsafeMutablePointer<EntryLink>
  ) -> UnsafeMutablePointer<EntryLink> {
    let top = node.pointee.left.unsafelyUnwrapped
    replace(node, by: top)
    top.pointee.parent = node.pointee.parent
    node.pointee.left = top.pointee.right
    top.pointee.right?.pointee.parent = node
    top.pointee.right = node
    node.pointee.parent = top
    node.update()
    top.update()
    return top
  }

  /// Lets whatever points down to `old` point to `new`.
  @inline(__always)
  private mutating func replace(
    _ old: UnsafeMutablePointer<EntryLink>, by new: UnsafeMutablePointer<EntryLink>?
  ) {
    guard let parent = old.pointee.parent else {
      root = new
      return
    }
    if parent.pointee.left == old { parent.pointee.left = new } else { parent.pointee.right = new }
  }

  // MARK: Checking

  /// The number of entries; traps where order, balance or a summary is wrong. For tests and checked builds.
  ///
  /// - Parameter limit: subtrees higher than this are not looked into; their entries count as one.
  func checked(limit: UInt64 = .max) -> UInt32 {
    root.map { Self.check($0, nil, limit) } ?? 0
  }

  private static func check(
    _ node: UnsafeMutablePointer<EntryLink>, _ parent: UnsafeMutablePointer<EntryLink>?,
    _ limit: UInt64
  ) -> UInt32 {
    precondition(node.pointee.parent == parent, "IntervalTree: a parent is wrong")
    if node.height > limit { return 1 }
    let (left, right) = (node.pointee.left, node.pointee.right)
    let first = node.entry.pointer.pointee.first
    if let left { precondition(left.entry.pointer.pointee.first <= first, "IntervalTree: order") }
    if let right { precondition(right.entry.pointer.pointee.first >= first, "IntervalTree: order") }
    var count: UInt32 = 1
    if let left { count += check(left, node, limit) }
    if let right { count += check(right, node, limit) }
    precondition(abs(node.balance) <= 1, "IntervalTree: out of balance")
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
