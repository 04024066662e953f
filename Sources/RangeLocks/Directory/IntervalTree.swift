// SPDX-License-Identifier: Apache-2.0
//
// The requests of a shard, by their first key, with the greatest last key below each node.
//
// Guarantee: an overlap is found, an entry added or removed in a number of steps that grows with the logarithm of
// the number of entries. Equal first keys are allowed.
// Mechanism: a rank-balanced binary tree through the entries' own links; each node knows the greatest last
// key, the least stamp (`Waiting`), and whether there is an entry in its subtree that is no plain reader.
// Ranks, not heights: who comes to one place of a large tree and goes, again and again, changes those of a few nodes once,
// where heights would change all the way up, and back.
// Cost: 40 bytes in the entry; no allocation.
// Source: Haeupler, Sen, Tarjan, "Rank-balanced trees" (2015), weak AVL trees; Cormen et al., "Introduction to Algorithms",
// interval trees.

/// One membership of an entry in a tree; protected by the latch of the tree.
struct EntryLink {
  var left: UnsafeMutablePointer<EntryLink>?
  var right: UnsafeMutablePointer<EntryLink>?
  var parent: UnsafeMutablePointer<EntryLink>?
  /// The greatest last key of the subtree.
  var greatest: UInt64
  /// The least stamp of the subtree, above `stampShift`; below it the rank, whether an entry of the subtree is
  /// no plain reader, and whether the link lies in the entry's second block.
  ///
  /// Ranks: 0 of nothing, 1 of a node without children; a node's is greater than a child's by 1 or 2. At most twice the
  /// logarithm of the number of entries.
  var tag: UInt64

  static let rankMask: UInt64 = 63
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
  var rank: UInt64 { pointee.tag & EntryLink.rankMask }

  @inline(__always)
  var isLeaf: Bool { pointee.left == nil && pointee.right == nil }

  /// The subtree's summary without its children.
  @inline(__always)
  static func ownSummary(_ entry: EntryRef) -> UInt64 {
    entry.pointer.pointee.mode != .read ? EntryLink.exclusiveBit : 0
  }

  /// Lowers the least stamp.
  @inline(__always)
  fileprivate func lower(toStamp stamp: UInt64) {
    let own = pointee.tag & ~EntryLink.stampMask
    let shifted = stamp &<< EntryLink.stampShift
    if pointee.tag &- own > shifted { pointee.tag = own | shifted }
  }

  /// Computes the summaries from the children's.
  @inline(__always)
  func update() {
    let entry = entry
    var greatest = entry.pointer.pointee.last
    var summary =
      Self.ownSummary(entry) | pointee.tag & (EntryLink.secondBlockBit | EntryLink.rankMask)
    var stamp = entry.stamp &<< EntryLink.stampShift
    if let left = pointee.left {
      greatest = Swift.max(greatest, left.pointee.greatest)
      summary |= left.pointee.tag & EntryLink.exclusiveBit
      stamp = Swift.min(stamp, left.pointee.tag & EntryLink.stampMask)
    }
    if let right = pointee.right {
      greatest = Swift.max(greatest, right.pointee.greatest)
      summary |= right.pointee.tag & EntryLink.exclusiveBit
      stamp = Swift.min(stamp, right.pointee.tag & EntryLink.stampMask)
    }
    pointee.greatest = greatest
    pointee.tag = stamp | summary
  }
}

extension UnsafeMutablePointer<EntryLink>? {
  @inline(__always)
  var rank: UInt64 { self?.rank ?? 0 }
}

/// A tree of entries. Zeroed memory is an empty tree. All of it needs the latch of its shard.
struct IntervalTree {
  var root: UnsafeMutablePointer<EntryLink>?

  /// Whether `link` is the only one.
  @inline(__always)
  func isOnly(_ link: UnsafeMutablePointer<EntryLink>) -> Bool {
    root == link && link.rank == 1
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
    if parent.rank == 1 { promote(above: link) }
  }

  /// Adds `link` as a membership of `entry`, which has no stamp, unless an entry overlaps it; in one walk down, and up
  /// again only as far as something changes.
  mutating func insertUnlessOverlapping(
    _ link: UnsafeMutablePointer<EntryLink>, _ entry: EntryRef
  ) -> Bool {
    let first = entry.pointer.pointee.first
    let last = entry.pointer.pointee.last
    var parent: UnsafeMutablePointer<EntryLink>?
    var isLeft = false
    var cursor = root
    while let node = cursor {
      parent = node
      let other = node.entry
      isLeft = other.pointer.pointee.first > last
      if isLeft {
        // Everything on the right begins behind the range, too.
        cursor = node.pointee.left
      } else {
        if other.pointer.pointee.last >= first { return false }
        // Everything on the left begins before the range: it overlaps if it reaches it.
        if let left = node.pointee.left, left.pointee.greatest >= first { return false }
        cursor = node.pointee.right
      }
    }
    let summary = UnsafeMutablePointer<EntryLink>.ownSummary(entry)
    link.initialize(
      to: EntryLink(
        left: nil, right: nil, parent: parent, greatest: last, tag: summary | 1))
    guard let parent else {
      root = link
      return true
    }
    if isLeft { parent.pointee.left = link } else { parent.pointee.right = link }
    // What a subtree says covers what those inside it say: above the first that says it already, all do.
    var above: UnsafeMutablePointer<EntryLink>? = parent
    while let node = above {
      let tag = node.pointee.tag & ~EntryLink.stampMask | summary
      if node.pointee.greatest >= last, node.pointee.tag == tag { break }
      if last > node.pointee.greatest { node.pointee.greatest = last }
      node.pointee.tag = tag
      above = node.pointee.parent
    }
    if parent.rank == 1 { promote(above: link) }
    return true
  }

  /// Takes `link` out.
  @inline(__always)
  mutating func remove(_ link: UnsafeMutablePointer<EntryLink>) {
    if isOnly(link) { removeLast() } else { removeSlow(link) }
  }

  @inline(never)
  private mutating func removeSlow(_ link: UnsafeMutablePointer<EntryLink>) {
    // The child in the place of what goes, and the parent of both.
    let child: UnsafeMutablePointer<EntryLink>?
    let above: UnsafeMutablePointer<EntryLink>?
    if let left = link.pointee.left, let right = link.pointee.right {
      // The next entry in order takes the place.
      var next = right
      while let lower = next.pointee.left { next = lower }
      child = next.pointee.right
      var changed = next
      if next != right {
        changed = next.pointee.parent.unsafelyUnwrapped
        changed.pointee.left = child
        child?.pointee.parent = changed
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
        next.pointee.tag & EntryLink.secondBlockBit
        | link.pointee.tag & ~EntryLink.secondBlockBit
      above = changed
      retrace(from: changed, through: next)
    } else {
      child = link.pointee.left ?? link.pointee.right
      above = link.pointee.parent
      replace(link, by: child)
      child?.pointee.parent = above
      retrace(from: above, through: nil)
    }
    demote(above: child, from: above)
  }

  /// Makes the summaries right after the entry of `link` changed its mode or its stamp.
  mutating func refresh(_ link: UnsafeMutablePointer<EntryLink>) {
    retrace(from: link, through: nil)
  }

  /// Updates summaries from `start` upwards, until nothing changes, but not before `must`.
  @inline(__always)
  private func retrace(
    from start: UnsafeMutablePointer<EntryLink>?, through must: UnsafeMutablePointer<EntryLink>?
  ) {
    var cursor = start
    var mayStop = must == nil
    while let node = cursor {
      let (greatest, tag) = (node.pointee.greatest, node.pointee.tag)
      node.update()
      if node == must { mayStop = true }
      if mayStop, node.pointee.greatest == greatest, node.pointee.tag == tag { return }
      cursor = node.pointee.parent
    }
  }

  /// Lets whatever points down to `old` point to `new`.
  @inline(__always)
  mutating func replace(
    _ old: UnsafeMutablePointer<EntryLink>, by new: UnsafeMutablePointer<EntryLink>?
  ) {
    guard let parent = old.pointee.parent else {
      root = new
      return
    }
    if parent.pointee.left == old { parent.pointee.left = new } else { parent.pointee.right = new }
  }
}
