// SPDX-License-Identifier: Apache-2.0
//
// What must hold when no thread is in a change or a search.

import Synchronization

extension LayoutTree {
  /// Traps when the structure is broken; empty outside checked builds.
  ///
  /// - Precondition: no other thread changes or searches the layout.
  borrowing func checkInvariants() {
    #if RANGELAND_CHECKS
      var walk = InvariantWalk()
      check(rootNode, 0, Address.spaceEnd, &walk)
      precondition(
        walk.expected == Address.spaceEnd, "layout: the leaves do not reach the end of the space")
      precondition(walk.open == nil, "layout: a record reaches beyond the space")
    #endif
  }

  /// Leaves and index nodes in the tree, for tests that prove that a churn leaves no trail.
  borrowing func shapeSize() -> (leaves: Int, nodes: Int) {
    var size = (leaves: 0, nodes: 0)
    measureShape(rootNode, &size)
    return size
  }

  private borrowing func measureShape(_ node: IndexRef, _ size: inout (leaves: Int, nodes: Int)) {
    size.nodes += 1
    for i in 0..<Int(node.pointee.count) {
      if node.pointee.level > 0 {
        measureShape(node.node(i), &size)
      } else {
        size.leaves += 1
      }
    }
  }

  #if RANGELAND_CHECKS
    private struct InvariantWalk {
      /// Where the next leaf must begin.
      var expected: Address = 0
      /// The record that reaches over the border to the next leaf.
      var open: RecordRef?
      var lastEnd: Address = 0
    }

    private borrowing func check(
      _ node: IndexRef, _ low: Address, _ high: Address, _ walk: inout InvariantWalk
    ) {
      let count = Int(node.pointee.count)
      precondition(count > 0 && count <= IndexNode.fanout, "layout: node count")
      precondition(node.keys[0] == low, "layout: the first key is not the parent's")
      precondition(node.pointee.high == high, "layout: the node's high is not the parent's")
      precondition(node.pointee.isStray.load(ordering: .relaxed) == 0, "layout: stray node")
      for i in 0..<count {
        let end = node.high(of: i)
        precondition(node.keys[i] < end, "layout: keys are not sorted")
        let hint = node.hints[i].load(ordering: .relaxed)
        if node.pointee.level > 0 {
          precondition(
            node.node(i).pointee.level + 1 == node.pointee.level, "layout: node level")
          check(node.node(i), node.keys[i], end, &walk)
          precondition(hint >= node.node(i).largestHint(), "layout: hint below a child's")
        } else {
          let leaf = node.leaf(i)
          precondition(
            leaf.pointee.low == node.keys[i] && leaf.pointee.high == end, "layout: fences")
          check(leaf, &walk)
          precondition(hint >= leaf.content.pointee.measure, "layout: hint below the leaf's")
        }
      }
    }

    private borrowing func check(_ leaf: LeafRef, _ walk: inout InvariantWalk) {
      let low = leaf.pointee.low
      let high = leaf.pointee.high
      precondition(low == walk.expected, "layout: a hole between leaves")
      walk.expected = high
      precondition(!leaf.pointee.isStray && !leaf.pointee.latch.isLocked, "layout: leaf state")
      let content = leaf.content
      let count = content.pointee.count
      precondition(count <= LeafContent.capacity, "layout: too many entries")
      if leaf.isSpan {
        precondition(count <= 1, "layout: a span leaf with several entries")
        if count == 1 {
          let record = content.records[0]
          precondition(
            record.pointee.start <= low && record.pointee.end >= high,
            "layout: a border inside a span leaf")
        }
      }
      if let open = walk.open {
        precondition(
          count > 0 && content.records[0] == open, "layout: a record is missing in a leaf")
      }
      walk.open = nil
      for i in 0..<count {
        let record = content.records[i]
        let start = record.pointee.start
        let end = record.pointee.end
        precondition(content.starts[i] == start, "layout: start of an entry")
        precondition(start < end && start.isPageAligned && end.isPageAligned, "layout: bounds")
        precondition(start < high && end > low, "layout: an entry outside its leaf")
        if start >= low {
          precondition(start >= walk.lastEnd, "layout: records overlap")
        } else {
          precondition(i == 0 && end == walk.lastEnd, "layout: an entry from below is unknown")
        }
        walk.lastEnd = end
        if end > high { walk.open = record }
      }
      let measure = content.pointee.measure
      content.measureGaps(low, high)
      precondition(content.pointee.measure == measure, "layout: measure")
    }
  #endif
}
