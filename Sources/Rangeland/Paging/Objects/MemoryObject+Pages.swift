// SPDX-License-Identifier: Apache-2.0
//
// The pages of a shared object or a file: a radix tree from page index to frame (Linux `i_pages`).
//
// A tree of height h covers the indices below 64^h; it grows at the root. A slot is 0, a child's address,
// or in the lowest level a frame number (0 cannot be a page of an object: it is the shared zero page).
// The tree holds one reference to each frame. Nodes are freed with the object. Slots of files have two marks above
// the frame number: see MemoryObject+Cache.swift.

import RangeLocks
import Synchronization

typealias ObjectIndexRef = UnsafeMutablePointer<ObjectIndexNode>

/// A node of the radix tree: 16 bytes of header and 64 slots.
struct ObjectIndexNode {
  /// Used slots. Guarded by the object's `pagesLatch`.
  var count: UInt64 = 0

  static var slotCount: Int { 64 }
  static var slotOffset: Int { 16 }
  /// Levels that cover every index: 11 * 6 bits are enough for 64.
  static var maxHeight: Int32 { 11 }
  /// Nodes that one insertion can need: growth to the top, and the path down.
  static var nodesPerInsertion: Int { 22 }
}

extension UnsafeMutablePointer where Pointee == ObjectIndexNode {
  /// Slot `i`. Sound: a node has 16 + 64 * 8 bytes.
  @inline(__always)
  func slot(_ i: Int) -> UnsafeMutablePointer<UInt64> {
    (UnsafeMutableRawPointer(self) + ObjectIndexNode.slotOffset + i << 3)
      .assumingMemoryBound(to: UInt64.self)
  }

  @inline(__always)
  func slot(of index: UInt64, height: Int32) -> UnsafeMutablePointer<UInt64> {
    slot(Int(truncatingIfNeeded: index >> (6 * UInt64(height - 1))) & 63)
  }

  static func make(_ context: Context) -> ObjectIndexRef {
    // Reserved by the caller.
    let node = context.allocate(.objectIndexNode).unsafelyUnwrapped
    let typed = node.bindMemory(to: ObjectIndexNode.self, capacity: 1)
    typed.initialize(to: ObjectIndexNode())
    (node + ObjectIndexNode.slotOffset).initializeMemory(
      as: UInt64.self, repeating: 0, count: ObjectIndexNode.slotCount)
    return typed
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// The frame of page `index`, with a reference for the caller; `nil` when there is none. Takes the
  /// latch of the pages, so with no page-table latch held.
  func page(_ index: UInt64) -> FrameNumber? {
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.objectPages, .pageTable, .read)
    let frame = findLocked(index)
    if frame == 0 { return nil }
    pointee.arena.retain(frame)
    return frame
  }

  /// Whether page `index` is in memory. Takes the latch of the pages.
  func hasPage(_ index: UInt64) -> Bool {
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.objectPages, .pageTable, .read)
    let slot = findSlotLocked(index)
    return slot != 0 && slot & ObjectSlot.loading == 0
  }

  /// What `pageCreating` found.
  enum Page {
    /// With a reference for the caller.
    case frame(FrameNumber)
    /// The special mapping has none there, or it is behind the end.
    case none
    case noMemory
  }

  /// As `page`, but makes the page if it is not there: filled with zeros, or by a special mapping. Unless it
  /// returns a frame nothing has changed. Of several threads that ask for a new page one makes it and all
  /// get it.
  func pageCreating(
    _ index: UInt64, _ context: Context
  ) -> Page {
    assert(pointee.kind != .anonymousIdentity, "the object has no pages")
    assert(pointee.file == nil, "a file's pages are read in")
    if let frame = page(index) { return .frame(frame) }
    if index > pointee.lastPage { return .none }
    let arena = pointee.arena
    guard context.reserve(.objectIndexNode, count: ObjectIndexNode.nodesPerInsertion),
      let fresh = arena.allocate(zeroed: true, context)
    else { return .noMemory }
    // A hook may not touch the space; the reservation above is this thread's and stays.
    if pointee.kind == .special, !fillSpecial(index, fresh) {
      arena.release(fresh, context)
      return .none
    }
    arena.setOwner(of: fresh, self, index: index)
    pointee.pagesLatch.lock(.pageTable)
    LockMap.observe(.objectPages, .pageTable, .write)
    let there = findLocked(index)
    if there != 0 {
      arena.retain(there)
    } else {
      insertLocked(index, fresh, context)
      // The tree keeps the first reference, the caller gets another.
      arena.retain(fresh)
    }
    pointee.pagesLatch.unlock(.pageTable)
    if there == 0 { return .frame(fresh) }
    arena.release(fresh, context)
    return .frame(there)
  }

  /// Marks the first page in `[start, end)`, which is to be taken out; `nil` when there is none. Nobody maps it from
  /// then on. Takes the latch of the pages; needs that of removals, which keeps the page there.
  func markPage(from start: UInt64, below end: UInt64) -> (index: UInt64, frame: FrameNumber)? {
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.objectPages, .pageTable, .write)
    guard let index = nextPageLocked(start, below: end) else { return nil }
    let frame = findLocked(index)
    pointee.arena.markRemoved(frame)
    return (index, frame)
  }

  /// Waits until a page that was found marked is taken out. With nothing latched.
  func waitForRemoval() {
    pointee.removalLatch.lock(.objectRemoval)
    pointee.removalLatch.unlock(.objectRemoval)
  }

  /// Takes the first page in `[start, end)` that is marked out of the object; `nil` when there is none. The
  /// caller gets the object's reference. Takes the latch of the pages; needs that of removals.
  func takeMarkedPage(
    from start: UInt64, below end: UInt64, _ context: Context
  ) -> (index: UInt64, frame: FrameNumber)? {
    pointee.pagesLatch.lock(.pageTable)
    defer { pointee.pagesLatch.unlock(.pageTable) }
    LockMap.observe(.objectPages, .pageTable, .write)
    var index = start
    while let found = nextPageLocked(index, below: end), let root = pointee.pagesRoot {
      index = found + 1
      // Made after the others were marked.
      if !pointee.arena.isRemoved(findLocked(found)) { continue }
      let frame = takeLocked(root, pointee.pagesHeight, found, context)
      if root.pointee.count == 0 {
        context.recycle(root, .objectIndexNode)
        pointee.pagesRoot = nil
        pointee.pagesHeight = 0
      }
      pointee.pageCount.subtract(1, ordering: .relaxed)
      return (found, frame)
    }
    return nil
  }

  /// Takes a page that is there out of the tree below `node`; nodes that become empty are freed, but for this one.
  private func takeLocked(
    _ node: ObjectIndexRef, _ height: Int32, _ index: UInt64, _ context: Context
  ) -> FrameNumber {
    let slot = node.slot(of: index, height: height)
    if height == 1 {
      defer {
        slot.pointee = 0
        node.pointee.count -= 1
      }
      return FrameNumber(truncatingIfNeeded: slot.pointee)
    }
    let child = ObjectIndexRef(bitPattern: UInt(slot.pointee)).unsafelyUnwrapped
    let frame = takeLocked(child, height - 1, index, context)
    if child.pointee.count == 0 {
      slot.pointee = 0
      node.pointee.count -= 1
      context.recycle(child, .objectIndexNode)
    }
    return frame
  }

  /// The frame of `index`, 0 = none. Needs `pagesLatch`.
  func findLocked(_ index: UInt64) -> FrameNumber {
    var height = pointee.pagesHeight
    guard height > 0, height == ObjectIndexNode.maxHeight || index >> (6 * UInt64(height)) == 0,
      var node = pointee.pagesRoot
    else { return 0 }
    while true {
      let value = node.slot(of: index, height: height).pointee
      if height == 1 { return FrameNumber(truncatingIfNeeded: value) }
      guard let child = ObjectIndexRef(bitPattern: UInt(value)) else {
        return 0
      }
      node = child
      height -= 1
    }
  }

  /// Puts `frame` at `index`, which is empty. Needs `pagesLatch`, and `nodesPerInsertion` reserved.
  func insertLocked(_ index: UInt64, _ frame: FrameNumber, _ context: Context) {
    if pointee.pagesRoot == nil {
      // As high as it has to be: there is nothing to put below a growing root.
      var height: Int32 = 1
      while height < ObjectIndexNode.maxHeight, index >> (6 * UInt64(height)) != 0 { height += 1 }
      pointee.pagesRoot = .make(context)
      pointee.pagesHeight = height
    }
    while pointee.pagesHeight < ObjectIndexNode.maxHeight,
      index >> (6 * UInt64(pointee.pagesHeight)) != 0
    {
      let root = ObjectIndexRef.make(context)
      root.slot(0).pointee = UInt64(UInt(bitPattern: pointee.pagesRoot))
      root.pointee.count = 1
      pointee.pagesRoot = root
      pointee.pagesHeight = pointee.pagesHeight + 1
    }
    var node = pointee.pagesRoot.unsafelyUnwrapped
    var height = pointee.pagesHeight
    while height > 1 {
      let slot = node.slot(of: index, height: height)
      if slot.pointee == 0 {
        slot.pointee = UInt64(
          UInt(bitPattern: ObjectIndexRef.make(context)))
        node.pointee.count += 1
      }
      node = ObjectIndexRef(bitPattern: UInt(slot.pointee)).unsafelyUnwrapped
      height -= 1
    }
    node.slot(of: index, height: 1).pointee = UInt64(frame)
    node.pointee.count += 1
    pointee.pageCount.add(1, ordering: .relaxed)
  }

  /// Lets all pages go. The object has no user any more.
  func releasePages(_ context: Context) {
    guard let root = pointee.pagesRoot else { return }
    releaseNode(root, pointee.pagesHeight, context)
    pointee.pagesRoot = nil
    pointee.pagesHeight = 0
    pointee.pageCount.store(0, ordering: .relaxed)
  }

  private func releaseNode(
    _ node: ObjectIndexRef, _ height: Int32, _ context: Context
  ) {
    for i in 0..<ObjectIndexNode.slotCount {
      let value = node.slot(i).pointee
      if value == 0 { continue }
      if height == 1 {
        pointee.arena.release(FrameNumber(truncatingIfNeeded: value), context)
      } else {
        releaseNode(ObjectIndexRef(bitPattern: UInt(value)).unsafelyUnwrapped, height - 1, context)
      }
    }
    // Read under the latch only, and nobody latches any more.
    context.recycle(node, .objectIndexNode)
  }
}
