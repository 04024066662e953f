// SPDX-License-Identifier: Apache-2.0
//
// A leaf of the VMA tree: the records that overlap the addresses between two fences.
//
// Guarantee: the content of a leaf that is in the tree is the truth about its addresses, at every
//   instant; a record is in every leaf that it overlaps.
// Mechanism: writers hold the latch, build a new content block and publish it with one store; readers
//   load it. Fences never change: another division of the addresses makes new leaves, and the old one
//   is stray. A reader that still goes to a stray leaf finds the content of the instant when it was
//   replaced, which lies within the reader's call; a writer checks the mark under the latch.
// Cost: 112 bytes on a pair of cache lines of its own.

import RangeLocks
import Synchronization

typealias LeafRef = UnsafeMutablePointer<LayoutLeaf>

struct LayoutLeaf: ~Copyable {
  /// Lock order: leaves ascending, then the shape latch.
  let latch = Latch()
  /// Whether the leaf has been replaced. Guarded by the latch.
  var isStray = false
  /// First address. Immutable.
  let low: Address
  /// One past the last address. Immutable.
  let high: Address
  /// The content, a `ContentRef`. Stored under the latch, releasing to the readers' acquiring loads.
  let content: Atomic<UInt>
  /// The next leaf that the same writer has latched. Guarded by the latch.
  var nextLatched: LeafRef?
  /// What the writer is about to publish. Guarded by the latch.
  var pending: ContentRef?

  init(low: Address, high: Address, content: ContentRef) {
    self.low = low
    self.high = high
    self.content = Atomic(UInt(bitPattern: content))
  }
}

extension UnsafeMutablePointer where Pointee == LayoutLeaf {
  /// The content now. The caller is pinned or holds the latch.
  @inline(__always)
  var content: ContentRef {
    // Acquires what the writer stored before it published the block.
    ContentRef(bitPattern: pointee.content.load(ordering: .acquiring)).unsafelyUnwrapped
  }

  /// Whether the leaf reaches over several cells: then one record covers it, or none.
  @inline(__always)
  var isSpan: Bool {
    pointee.low >> LayoutTree.cellShift != (pointee.high &- 1) >> LayoutTree.cellShift
  }
}
