// SPDX-License-Identifier: Apache-2.0
//
// Gap hints: for every child of an index node, an upper bound of the measures of the leaves below it.
//
// Guarantee: when no thread is in a change or a search, every hint is at least the measure of every leaf
//   below it. A search that is misled meanwhile is repeated without hints before it reports ENOMEM.
// Mechanism: a writer whose leaf measures more than before raises, bottom up, every hint that is lower:
//   in steady state it only reads. Searchers lower a hint that they found too high.
//   - raise: publish below, then read above; lower: swap above, then read below again. All of them
//     sequentially consistent, so one of two that race sees the other.
//   - a node that is copied is marked stray first; a raiser looks at the mark after it wrote, and
//     starts over, so its value is in the copy or it raises there.

import CRangeland
import Synchronization

extension LayoutTree {
  /// Makes every hint above `address` at least `measure`.
  ///
  /// - Precondition: pinned; the leaf with that measure is in the tree. No shape latch is held.
  @inline(__always)
  borrowing func raise(_ address: Address, to measure: UInt64) {
    while !raise(below: rootNode, address, measure) {
      // The copy is on its way; its maker holds the shape latch.
      shape.lock(.layoutShape)
      shape.unlock(.layoutShape)
    }
  }

  /// `false` = met a node that has been copied meanwhile.
  private borrowing func raise(
    below node: IndexRef, _ address: Address, _ measure: UInt64
  ) -> Bool {
    let i = node.slot(for: address)
    if node.pointee.level > 0, !raise(below: node.node(i), address, measure) { return false }
    let hint = node.hints + i
    // Partner: the exchange in `lower`.
    var seen = hint.pointee.load(ordering: .sequentiallyConsistent)
    while seen < measure {
      let (done, current) = hint.pointee.compareExchange(
        expected: seen, desired: measure, ordering: .sequentiallyConsistent)
      if done { break }
      seen = current
    }
    // Partner: the mark in `copyMark`. Unmarked: what we read or wrote will be copied.
    return node.pointee.isStray.load(ordering: .sequentiallyConsistent) == 0
  }

  /// Lowers hint `i` of `node` to what stands below it, if that is less.
  borrowing func lower(_ node: IndexRef, _ i: Int) {
    let hint = node.hints + i
    let old = hint.pointee.load(ordering: .sequentiallyConsistent)
    let found = measure(below: node, i)
    if found >= old { return }
    guard
      hint.pointee.compareExchange(
        expected: old, desired: found, ordering: .sequentiallyConsistent
      ).exchanged
    else { return }
    // Partner: `raise`, which published below before it read this hint.
    let again = measure(below: node, i)
    if again > found { raise(node.keys[i], to: again) }
  }

  /// The bound that the level below gives for child `i`.
  private borrowing func measure(below node: IndexRef, _ i: Int) -> UInt64 {
    if node.pointee.level > 0 { return node.node(i).largestHint() }
    let leaf = node.leaf(i)
    let bits = leaf.pointee.content.load(ordering: .sequentiallyConsistent)
    return ContentRef(bitPattern: bits).unsafelyUnwrapped.pointee.measure
  }

  /// The highest leaf that starts below `limit`, reaches above `low` and measures at least `needed`, as
  /// far as the hints tell.
  borrowing func promisingLeaf(
    below limit: Address, above low: Address, needed: UInt64
  ) -> LeafRef? {
    promisingLeaf(rootNode, limit, low, needed)
  }

  private borrowing func promisingLeaf(
    _ node: IndexRef, _ limit: Address, _ low: Address, _ needed: UInt64
  ) -> LeafRef? {
    var i = node.slot(for: limit &- 1)
    while i >= 0 {
      let high = node.high(of: i)
      if high <= low { return nil }
      if node.hints[i].load(ordering: .relaxed) >= needed {
        if node.pointee.level == 0 {
          let leaf = node.leaf(i)
          if leaf.content.pointee.measure >= needed { return leaf }
          lower(node, i)
        } else {
          let child = node.node(i)
          if let leaf = promisingLeaf(child, min(limit, high), low, needed) { return leaf }
          lower(node, i)
        }
      }
      i &-= 1
    }
    return nil
  }
}
