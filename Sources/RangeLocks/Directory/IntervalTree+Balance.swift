// SPDX-License-Identifier: Apache-2.0
//
// Ranks and rotations of a tree of entries.
//
// Guarantee: a node's rank is greater than each child's by 1 or 2, nothing has rank 0, a node without children 1.
// Mechanism: who came makes ranks above it greater until one is right, who went makes them smaller; at most two rotations end it.
// Cost: a constant number of steps per change, taken together, whatever comes and goes (with heights only if nothing goes).
// Source: Haeupler, Sen, Tarjan, "Rank-balanced trees" (2015), sections 3 and 4.

extension IntervalTree {
  /// Makes the ranks right above a node that has become as high as its parent.
  @inline(never)
  mutating func promote(above start: UnsafeMutablePointer<EntryLink>) {
    var node = start
    while let parent = node.pointee.parent, parent.rank == node.rank {
      let isLeft = parent.pointee.left == node
      let sibling = isLeft ? parent.pointee.right : parent.pointee.left
      if parent.rank &- sibling.rank == 1 {
        parent.pointee.tag &+= 1
        node = parent
        continue
      }
      let inner = isLeft ? node.pointee.right : node.pointee.left
      if let inner, node.rank &- inner.rank == 1 {
        if isLeft { rotateLeft(node) } else { rotateRight(node) }
        inner.pointee.tag &+= 1
        node.pointee.tag &-= 1
      }
      if isLeft { rotateRight(parent) } else { rotateLeft(parent) }
      parent.pointee.tag &-= 1
      return
    }
  }

  /// Makes the ranks right where a subtree has become lower: `start`, or nothing, below `above`.
  @inline(__always)
  mutating func demote(
    above start: UnsafeMutablePointer<EntryLink>?, from above: UnsafeMutablePointer<EntryLink>?
  ) {
    guard let above else { return }
    if above.isLeaf ? above.rank == 2 : above.rank &- start.rank == 3 {
      demoteSlow(above: start, from: above)
    }
  }

  @inline(never)
  private mutating func demoteSlow(
    above start: UnsafeMutablePointer<EntryLink>?, from above: UnsafeMutablePointer<EntryLink>
  ) {
    var node = start
    var next: UnsafeMutablePointer<EntryLink>? = above
    if above.isLeaf {
      above.pointee.tag &-= 1
      node = above
      next = above.pointee.parent
    }
    while let parent = next, parent.rank &- node.rank == 3 {
      let isLeft = parent.pointee.left == node
      // It is there: nothing has no rank below.
      let sibling = (isLeft ? parent.pointee.right : parent.pointee.left).unsafelyUnwrapped
      if parent.rank &- sibling.rank == 2 {
        parent.pointee.tag &-= 1
      } else {
        let inner = isLeft ? sibling.pointee.left : sibling.pointee.right
        let outer = isLeft ? sibling.pointee.right : sibling.pointee.left
        if sibling.rank &- outer.rank == 1 {
          if isLeft { rotateLeft(parent) } else { rotateRight(parent) }
          sibling.pointee.tag &+= 1
          parent.pointee.tag &-= parent.isLeaf ? 2 : 1
          return
        }
        if let inner, sibling.rank &- inner.rank == 1 {
          if isLeft { rotateRight(sibling) } else { rotateLeft(sibling) }
          if isLeft { rotateLeft(parent) } else { rotateRight(parent) }
          inner.pointee.tag &+= 2
          sibling.pointee.tag &-= 1
          parent.pointee.tag &-= 2
          return
        }
        parent.pointee.tag &-= 1
        sibling.pointee.tag &-= 1
      }
      node = parent
      next = parent.pointee.parent
    }
  }

  /// The right child takes the node's place. Ranks are the caller's.
  private mutating func rotateLeft(_ node: UnsafeMutablePointer<EntryLink>) {
    let top = node.pointee.right.unsafelyUnwrapped
    replace(node, by: top)
    top.pointee.parent = node.pointee.parent
    node.pointee.right = top.pointee.left
    top.pointee.left?.pointee.parent = node
    top.pointee.left = node
    node.pointee.parent = top
    node.update()
    top.update()
  }

  /// The left child takes the node's place. Ranks are the caller's.
  private mutating func rotateRight(_ node: UnsafeMutablePointer<EntryLink>) {
    let top = node.pointee.left.unsafelyUnwrapped
    replace(node, by: top)
    top.pointee.parent = node.pointee.parent
    node.pointee.left = top.pointee.right
    top.pointee.right?.pointee.parent = node
    top.pointee.right = node
    node.pointee.parent = top
    node.update()
    top.update()
  }
}
