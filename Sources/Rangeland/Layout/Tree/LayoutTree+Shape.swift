// SPDX-License-Identifier: Apache-2.0
//
// Changes of the shape: a run of sibling leaves is replaced by other leaves for the same addresses.
//
// The caller holds the latches of the leaves that go, and then the shape latch is taken: one for the
// whole tree, because leaves divide rarely. New versions of the index nodes are built beside the old ones
// and enter the tree with one store, the instant of the change for lock-free readers; after that the
// old leaves and nodes are marked stray and retired. All memory has been reserved before.

import RangeLocks
import Synchronization

/// Up to three leaves that replace others.
struct LeafRun {
  var count = 0
  private var a: LeafRef?
  private var b: LeafRef?
  private var c: LeafRef?

  mutating func append(_ leaf: LeafRef) {
    switch count {
    case 0: a = leaf
    case 1: b = leaf
    default: c = leaf
    }
    count += 1
  }

  subscript(i: Int) -> LeafRef {
    switch i {
    case 0: a.unsafelyUnwrapped
    case 1: b.unsafelyUnwrapped
    default: c.unsafelyUnwrapped
    }
  }

  func entry(_ i: Int) -> ChildEntry {
    let leaf = self[i]
    return ChildEntry(
      key: leaf.pointee.low, bits: UInt(bitPattern: leaf), hint: leaf.content.pointee.measure)
  }
}

extension LayoutTree {
  /// Index nodes that one replacement may need: two for each level, and a new root.
  var nodesPerReplacement: Int { 2 * Int(rootNode.pointee.level + 1) + 3 }

  /// Replaces `removed` sibling leaves, of which `first` is the lowest, by `added`. Marks them stray and
  /// retires them and their contents; their latches stay held, the caller unlocks them.
  ///
  /// - Precondition: pinned; the latches of the removed leaves are held; `nodesPerReplacement` index
  ///   nodes are reserved.
  ///
  /// - Returns: `false` when the leaves are not children of one node; then nothing has changed.
  @discardableResult
  borrowing func replace(
    _ first: LeafRef, count removed: Int, by added: LeafRun, _ context: Context
  ) -> Bool {
    shape.lock(.layoutShape)
    LockMap.observe(.layout, .layoutShape, .write)
    var replaced: IndexRef?
    let root = rootNode
    if removed > 1 && !areSiblings(first, count: removed) {
      shape.unlock(.layoutShape)
      return false
    }
    let (one, two) = rebuild(root, first.pointee.low, removed, added, &replaced, context)
    if let one {
      if let two {
        let top = Self.makeNode(level: root.pointee.level + 1, high: Address.spaceEnd, context)
        top.append(Self.entry(one))
        top.append(Self.entry(two))
        self.root.store(UInt(bitPattern: top), ordering: .releasing)
      } else {
        self.root.store(UInt(bitPattern: one), ordering: .releasing)
      }
    }
    shape.unlock(.layoutShape)
    var leaf = first
    for i in 0..<removed {
      let next = leaf.pointee.nextLatched
      leaf.pointee.isStray = true
      context.retire(leaf.content, .leafContent)
      context.retire(leaf, .leaf)
      if i + 1 < removed { leaf = next.unsafelyUnwrapped }
    }
    while let node = replaced {
      replaced = node.pointee.nextReplaced
      context.retire(node, .indexNode)
    }
    for i in 0..<added.count {
      raise(added[i].pointee.low, to: added[i].content.pointee.measure)
    }
    return true
  }

  /// Whether the leaf and the `count - 1` behind it are children of one node. Under the shape latch.
  private borrowing func areSiblings(_ first: LeafRef, count: Int) -> Bool {
    var node = rootNode
    while node.pointee.level > 0 { node = node.node(node.slot(for: first.pointee.low)) }
    return node.slot(for: first.pointee.low) + count <= Int(node.pointee.count)
  }

  private static func entry(_ node: IndexRef) -> ChildEntry {
    ChildEntry(key: node.keys[0], bits: UInt(bitPattern: node), hint: node.largestHint())
  }

  /// New versions of the nodes on the path to the leaves: what the parent has to put in the place of
  /// `node`, or nothing when a pointer below has been replaced.
  private borrowing func rebuild(
    _ node: IndexRef, _ address: Address, _ removed: Int, _ added: LeafRun,
    _ replaced: inout IndexRef?, _ context: Context
  ) -> (IndexRef?, IndexRef?) {
    let slot = node.slot(for: address)
    if node.pointee.level == 0 {
      return copy(node, slot, removed, added.count, &replaced, context) { added.entry($0) }
    }
    let (one, two) = rebuild(node.node(slot), address, removed, added, &replaced, context)
    guard let one else { return (nil, nil) }
    guard let two else {
      // The key is the same, and the hint still bounds what it did: `replace` raises the rest.
      node.children[slot].store(UInt(bitPattern: one), ordering: .releasing)
      return (nil, nil)
    }
    return copy(node, slot, 1, 2, &replaced, context) {
      Self.entry($0 == 0 ? one : two)
    }
  }

  /// Copies a node with `removed` children from `slot` on replaced by `added` others, into one or two.
  private borrowing func copy(
    _ node: IndexRef, _ slot: Int, _ removed: Int, _ added: Int, _ replaced: inout IndexRef?,
    _ context: Context, _ entry: (Int) -> ChildEntry
  ) -> (IndexRef, IndexRef?) {
    let old = Int(node.pointee.count)
    precondition(slot + removed <= old, "LayoutTree.replace: the leaves are no siblings")
    // Marked before the hints are read. Partner: `raise`, which reads the mark after it wrote.
    node.pointee.isStray.store(1, ordering: .sequentiallyConsistent)
    node.pointee.nextReplaced = replaced
    replaced = node
    func child(_ i: Int) -> ChildEntry {
      if i >= slot && i < slot + added { return entry(i - slot) }
      let j = i < slot ? i : i - added + removed
      return ChildEntry(
        key: node.keys[j], bits: node.children[j].load(ordering: .acquiring),
        hint: node.hints[j].load(ordering: .sequentiallyConsistent))
    }
    let total = old - removed + added
    let first = total <= IndexNode.fanout ? total : (total + 1) / 2
    let high = first == total ? node.pointee.high : child(first).key
    let one = Self.makeNode(level: node.pointee.level, high: high, context)
    for i in 0..<first { one.append(child(i)) }
    if first == total { return (one, nil) }
    let two = Self.makeNode(level: node.pointee.level, high: node.pointee.high, context)
    for i in first..<total { two.append(child(i)) }
    return (one, two)
  }

  /// Makes sure that the cell of `address` has leaves of its own. `false` = no memory.
  ///
  /// - Precondition: pinned, no layout latch is held.
  @inline(__always)
  borrowing func carve(_ address: Address, _ context: Context) -> Bool {
    leaf(for: address).isSpan ? carveSlow(address, context) : true
  }

  @inline(never)
  private borrowing func carveSlow(_ address: Address, _ context: Context) -> Bool {
    while true {
      let leaf = leaf(for: address)
      if !leaf.isSpan { return true }
      let nodes = nodesPerReplacement
      guard context.reserve(.leafContent, count: 3), context.reserve(.leaf, count: 3),
        context.reserve(.indexNode, count: nodes)
      else { return false }
      leaf.pointee.latch.lock(.layoutLeaf)
      // The tree may have grown since it was asked for its height.
      if leaf.pointee.isStray || nodes < nodesPerReplacement {
        leaf.pointee.latch.unlock(.layoutLeaf)
        continue
      }
      let cell = address >> Self.cellShift
      let low = max(leaf.pointee.low, cell << Self.cellShift)
      let high = min(leaf.pointee.high, (cell + 1) << Self.cellShift)
      var run = LeafRun()
      if leaf.pointee.low < low {
        run.append(clip(leaf, leaf.pointee.low, low, context))
      }
      run.append(clip(leaf, low, high, context))
      if high < leaf.pointee.high {
        run.append(clip(leaf, high, leaf.pointee.high, context))
      }
      replace(leaf, count: 1, by: run, context)
      leaf.pointee.latch.unlock(.layoutLeaf)
      return true
    }
  }

  /// A leaf for a part of the addresses of a span leaf: with the one record that covers it, or none.
  private borrowing func clip(
    _ leaf: LeafRef, _ low: Address, _ high: Address, _ context: Context
  ) -> LeafRef {
    let content = Self.makeContent(context)
    if leaf.content.pointee.count > 0 { content.append(leaf.content.records[0]) }
    content.measureGaps(low, high)
    return Self.makeLeaf(low, high, content, context)
  }

  /// Divides a leaf whose pending content is too long. The pending block is recycled.
  ///
  /// - Precondition: as `replace`; two leaves and two contents are reserved.
  borrowing func divide(_ leaf: LeafRef, _ context: Context) {
    let pending = leaf.pointee.pending.unsafelyUnwrapped
    let count = pending.pointee.count
    let middle = count / 2
    let border = pending.starts[middle]
    let left = Self.makeContent(context)
    for i in 0..<middle { left.append(pending.records[i]) }
    left.measureGaps(leaf.pointee.low, border)
    let right = Self.makeContent(context)
    for i in middle..<count { right.append(pending.records[i]) }
    right.measureGaps(border, leaf.pointee.high)
    var run = LeafRun()
    run.append(Self.makeLeaf(leaf.pointee.low, border, left, context))
    run.append(Self.makeLeaf(border, leaf.pointee.high, right, context))
    context.recycle(pending, .leafContent)
    leaf.pointee.pending = nil
    replace(leaf, count: 1, by: run, context)
  }

  /// Joins the leaf of `address` with the next one when both are nearly empty, lie in one cell and are
  /// siblings: so that a churn of mappings leaves no trail of leaves. Does nothing without memory.
  ///
  /// - Precondition: pinned, no layout latch is held.
  borrowing func coalesce(_ address: Address, _ context: Context) {
    var node = rootNode
    while node.pointee.level > 0 { node = node.node(node.slot(for: address)) }
    let slot = node.slot(for: address)
    if slot + 1 < Int(node.pointee.count) {
      coalesce(node.leaf(slot), node.leaf(slot + 1), context)
    }
    if slot > 0 { coalesce(node.leaf(slot - 1), node.leaf(slot), context) }
  }

  private borrowing func coalesce(_ first: LeafRef, _ second: LeafRef, _ context: Context) {
    let limit = LeafContent.capacity / 2
    if first.pointee.low >> Self.cellShift != (second.pointee.high &- 1) >> Self.cellShift {
      return
    }
    if first.content.pointee.count + second.content.pointee.count > limit { return }
    let nodes = nodesPerReplacement
    guard context.reserve(.leafContent, count: 1), context.reserve(.leaf, count: 1),
      context.reserve(.indexNode, count: nodes)
    else { return }
    guard first.pointee.latch.tryLock(.layoutLeaf) else { return }
    defer { first.pointee.latch.unlock(.layoutLeaf) }
    guard second.pointee.latch.tryLock(.layoutLeaf) else { return }
    defer { second.pointee.latch.unlock(.layoutLeaf) }
    if first.pointee.isStray || second.pointee.isStray || nodes < nodesPerReplacement
      || first.pointee.high != second.pointee.low
      || first.content.pointee.count + second.content.pointee.count > limit
    {
      return
    }
    let content = Self.makeContent(context)
    for i in 0..<first.content.pointee.count { content.append(first.content.records[i]) }
    for i in 0..<second.content.pointee.count {
      let record = second.content.records[i]
      // One that reaches over the border is in both.
      if record.pointee.start < second.pointee.low { continue }
      content.append(record)
    }
    content.measureGaps(first.pointee.low, second.pointee.high)
    let joined = Self.makeLeaf(first.pointee.low, second.pointee.high, content, context)
    first.pointee.nextLatched = second
    var run = LeafRun()
    run.append(joined)
    if !replace(first, count: 2, by: run, context) {
      // A division of the parent has parted them.
      context.recycle(content, .leafContent)
      context.recycle(joined, .leaf)
    }
  }
}
