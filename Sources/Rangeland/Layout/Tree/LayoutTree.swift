// SPDX-License-Identifier: Apache-2.0
//
// The VMA layout of one address space: P2 of the lock map.
//
// Guarantee: readers that are pinned see, for every address, the record that stood there at some instant
//   of their call; changes split and merge VMAs as Linux does; a change that fails has changed nothing.
// Mechanism: a B+tree. Leaves hold immutable contents and are latched by writers, ascending; a division
//   of leaves copies index nodes under the shape latch. Leaves do not span a border of a 1 GiB cell once
//   a mapping begins or ends in the cell, so threads that work in different cells write different
//   leaves. Gaps are found by hints that are upper bounds, so that steady state writes nothing above a
//   leaf.
// Cost: a lookup is a load per level and two more; a change latches one leaf as a rule.
// Source: design sections 3-4; Linux lib/maple_tree.c for the idea of gaps kept in the nodes.

import CRangeland
import RangeLocks
import Synchronization

typealias LayoutRef = UnsafeMutablePointer<LayoutTree>

struct LayoutTree: ~Copyable {
  /// Immutable.
  let reclaimer: UnsafeMutablePointer<Reclaimer>
  /// Whether records carry a lock cell (policy `.perVMA`). Immutable.
  let makesCells: Bool
  /// Whether lookups go through the threads' caches (P3). Immutable.
  let usesCache: Bool
  #if RANGELAND_CHECKS
    /// Plants a mistake: see VMACache.swift.
    let mistakesCache = Atomic<Bool>(false)
  #endif
  /// Where placement ends and begins. Immutable.
  let limits: PlacementLimits
  /// Per-thread state, on lines of its own each. Immutable pointer; each thread uses its own.
  let threads: UnsafeMutablePointer<LayoutThread>
  /// The root, an `IndexRef`. Stored under the shape latch, releasing to the readers.
  let root: Atomic<UInt>
  /// Guards the shape: which nodes and leaves there are. Innermost of the layout's latches.
  let shape = Latch()
  /// Stretches handed out so far: see LayoutTree+Placement.swift.
  let stretchesTaken = Atomic<UInt64>(0)

  /// log2 of the size of a cell.
  static var cellShift: UInt64 { 30 }

  /// An empty layout in memory of its own; `nil` when there is no memory.
  static func make(
    reclaimer: UnsafeMutablePointer<Reclaimer>, makesCells: Bool, usesCache: Bool = false,
    limits: PlacementLimits = PlacementLimits()
  ) -> LayoutRef? {
    let context = reclaimer.context()
    guard context.reserve(.leafContent, count: 1), context.reserve(.leaf, count: 1),
      context.reserve(.indexNode, count: 1),
      let threads = rl_reserve(LayoutThread.stride * Int(RL_MAX_THREADS))
    else { return nil }
    let content = makeContent(context)
    let leaf = makeLeaf(0, Address.spaceEnd, content, context)
    let root = makeNode(level: 0, high: Address.spaceEnd, context)
    root.append(ChildEntry(key: 0, bits: UInt(bitPattern: leaf), hint: .max))
    let tree = LayoutRef.allocate(capacity: 1)
    tree.initialize(
      to: LayoutTree(
        reclaimer: reclaimer, makesCells: makesCells, usesCache: usesCache, limits: limits,
        threads: threads.assumingMemoryBound(to: LayoutThread.self),
        root: Atomic(UInt(bitPattern: root))))
    return tree
  }

  private init(
    reclaimer: UnsafeMutablePointer<Reclaimer>, makesCells: Bool, usesCache: Bool,
    limits: PlacementLimits, threads: UnsafeMutablePointer<LayoutThread>,
    root: consuming Atomic<UInt>
  ) {
    self.reclaimer = reclaimer
    self.makesCells = makesCells
    self.usesCache = usesCache
    self.limits = limits
    self.threads = threads
    self.root = root
  }

  /// Gives the nodes back. The layout holds no record any more (`remove` of the whole space), and no
  /// thread uses it.
  static func destroy(_ tree: LayoutRef) {
    let context = tree.pointee.reclaimer.context()
    recycle(tree.pointee.rootNode, context)
    _ = rl_release(tree.pointee.threads, LayoutThread.stride * Int(RL_MAX_THREADS))
    tree.deinitialize(count: 1)
    tree.deallocate()
  }

  /// Lets go of all records without memory for a change. No thread uses the layout any more.
  static func abandon(_ tree: LayoutRef, _ context: Context) {
    context.pin()
    var change = LayoutChange()
    tree.pointee.forEachRecord(in: .wholeSpace) { record, _ in
      change.drop(record, withCell: true)
      if record.pointee.flags.contains(.special) {
        change.noteSpecial(record, pieces: 0, isRemoved: true)
      }
      return true
    }
    empty(tree.pointee.rootNode)
    change.tellSpecials()
    change.dispose(context)
    context.unpin()
  }

  private static func empty(_ node: IndexRef) {
    for i in 0..<Int(node.pointee.count) {
      if node.pointee.level > 0 {
        empty(node.node(i))
      } else {
        node.leaf(i).content.pointee.count = 0
      }
    }
  }

  private static func recycle(_ node: IndexRef, _ context: Context) {
    for i in 0..<Int(node.pointee.count) {
      if node.pointee.level > 0 {
        recycle(node.node(i), context)
      } else {
        precondition(node.leaf(i).content.pointee.count == 0, "LayoutTree: records are left")
        context.recycle(node.leaf(i).content, .leafContent)
        context.recycle(node.leaf(i), .leaf)
      }
    }
    context.recycle(node, .indexNode)
  }

  @inline(__always)
  var rootNode: IndexRef {
    // Acquires the nodes that a change of the shape has filled.
    IndexRef(bitPattern: root.load(ordering: .acquiring)).unsafelyUnwrapped
  }

  /// The calling thread's own state.
  @inline(__always)
  borrowing func thread(_ context: Context) -> UnsafeMutablePointer<LayoutThread> {
    let offset = Int(context.pointee.index) &* LayoutThread.stride
    return (UnsafeMutableRawPointer(threads) + offset).assumingMemoryBound(to: LayoutThread.self)
  }

  // Nodes from memory that has been reserved: they do not fail.

  @inline(__always)
  static func makeContent(_ context: Context) -> ContentRef {
    let content = context.allocate(.leafContent).unsafelyUnwrapped
      .assumingMemoryBound(to: LeafContent.self)
    content.initializeEmpty()
    return content
  }

  static func makeLeaf(
    _ low: Address, _ high: Address, _ content: ContentRef, _ context: Context
  ) -> LeafRef {
    let leaf = context.allocate(.leaf).unsafelyUnwrapped
      .assumingMemoryBound(to: LayoutLeaf.self)
    leaf.initialize(to: LayoutLeaf(low: low, high: high, content: content))
    return leaf
  }

  static func makeNode(level: UInt32, high: Address, _ context: Context) -> IndexRef {
    let node = context.allocate(.indexNode).unsafelyUnwrapped
      .assumingMemoryBound(to: IndexNode.self)
    node.initialize(to: IndexNode(level: level, high: high))
    return node
  }
}

/// What one thread keeps for one layout. A thread index is reused after its thread has ended, and this
/// with it. Zero is the initial state.
struct LayoutThread {
  /// Start of the stretch that the thread fills under `.arenas`; 0 = none yet.
  var stretch: Address
  /// The plan of the change that the thread makes now.
  var splice: Splice

  /// Where the thread's `VMACache` stands.
  static var cacheOffset: Int { (MemoryLayout<LayoutThread>.size + 63) & ~63 }
  static var stride: Int { (cacheOffset + VMACache.byteCount + 127) & ~127 }
}

extension UnsafeMutablePointer where Pointee == LayoutThread {
  /// The plan of the thread's change.
  @inline(__always)
  var splice: SpliceRef {
    let offset = MemoryLayout<LayoutThread>.offset(of: \.splice).unsafelyUnwrapped
    return (UnsafeMutableRawPointer(self) + offset).assumingMemoryBound(to: Splice.self)
  }
}
