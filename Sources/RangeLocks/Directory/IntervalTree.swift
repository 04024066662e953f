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
  var balance: Int {
    Int(truncatingIfNeeded: pointee.left?.height ?? 0)
      &- Int(truncatingIfNeeded: pointee.right?.height ?? 0)
  }
}

/// A tree of entries. Zeroed memory is an empty tree. All of it needs the latch of its shard.
struct IntervalTree {
  var root: UnsafeMutablePointer<EntryLink>?

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
    if parent.height == 1 { retraceHeights(from: parent) }
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
    if parent.height == 1 { retraceHeights(from: parent) }
    return true
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
        (top.pointee.tag ^ summary) & ~(EntryLink.secondBlockBit | EntryLink.heightMask) == 0
      {
        if top.height != summary & EntryLink.heightMask {
          retraceHeights(from: top.pointee.parent)
        }
        return
      }
      cursor = top.pointee.parent
    }
  }

  /// The same where summaries are right already: in a large tree most steps upward are for heights.
  @inline(never)
  private mutating func retraceHeights(from start: UnsafeMutablePointer<EntryLink>?) {
    var cursor = start
    while let node = cursor {
      let before = node.height
      let left = node.pointee.left?.height ?? 0
      let right = node.pointee.right?.height ?? 0
      var top = node
      if left > right &+ 1 || right > left &+ 1 {
        top = balanced(node)
      } else {
        node.pointee.tag = node.pointee.tag & ~EntryLink.heightMask | (Swift.max(left, right) &+ 1)
      }
      if top.height == before { return }
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
}
