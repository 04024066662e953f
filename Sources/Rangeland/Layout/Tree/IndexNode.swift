// SPDX-License-Identifier: Apache-2.0
//
// An inner node of the VMA tree.
//
//   0      4      8       16      24       32          288              544          800
//   +------+------+-------+-------+--------+-----------+----------------+------------+
//   |level |count | stray | next  | high   | keys [32] | children [32]  | hints [32] |
//   +------+------+-------+-------+--------+-----------+----------------+------------+
//
// Keys, count and high are immutable: another division makes a new node. A child pointer of level 0 (a
// leaf) is immutable too; one of a higher level is replaced in place when the child has a new version.
// A hint is an upper bound of the measures (LeafContent) of the leaves below a child, except while a
// thread that raised a measure is on its way up: see LayoutTree+Hints.swift.

import Synchronization

typealias IndexRef = UnsafeMutablePointer<IndexNode>

struct IndexNode: ~Copyable {
  /// 0 = the children are leaves.
  let level: UInt32
  var count: UInt32
  /// Whether a new version has been copied from this node. Partner: `raise`, which looks after it wrote.
  let isStray = Atomic<UInt32>(0)
  /// Next of the nodes that one change of the shape replaced. Guarded by the shape latch.
  var nextReplaced: IndexRef?
  /// One past the last address below the node.
  let high: Address

  init(level: UInt32, high: Address) {
    self.level = level
    count = 0
    self.high = high
  }

  /// Children of a node. Checked builds use few.
  #if RANGELAND_CHECKS
    static var fanout: Int { 4 }
  #else
    static var fanout: Int { 32 }
  #endif
  static var keysOffset: Int { 32 }
  static var childrenOffset: Int { 32 + 32 * 8 }
  static var hintsOffset: Int { 32 + 64 * 8 }
}

/// A child of an index node while nodes are rebuilt.
struct ChildEntry {
  var key: Address
  /// A `LeafRef` or an `IndexRef`.
  var bits: UInt
  var hint: UInt64
}

extension UnsafeMutablePointer where Pointee == IndexNode {
  @inline(__always)
  var keys: UnsafeMutablePointer<UInt64> {
    (UnsafeMutableRawPointer(self) + IndexNode.keysOffset).assumingMemoryBound(to: UInt64.self)
  }

  /// Partner: shape changes store releasing, readers load acquiring.
  @inline(__always)
  var children: UnsafeMutablePointer<Atomic<UInt>> {
    (UnsafeMutableRawPointer(self) + IndexNode.childrenOffset)
      .assumingMemoryBound(to: Atomic<UInt>.self)
  }

  @inline(__always)
  var hints: UnsafeMutablePointer<Atomic<UInt64>> {
    (UnsafeMutableRawPointer(self) + IndexNode.hintsOffset)
      .assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// The child whose addresses hold `address`.
  @inline(__always)
  func slot(for address: UInt64) -> Int {
    let keys = keys
    var low = 0
    var length = Int(pointee.count)
    while length > 0 {
      let half = length &>> 1
      if keys[low &+ half] <= address {
        low &+= half &+ 1
        length &-= half &+ 1
      } else {
        length = half
      }
    }
    return low &- 1
  }

  /// One past the last address below child `i`.
  @inline(__always)
  func high(of i: Int) -> Address {
    i &+ 1 < Int(pointee.count) ? keys[i &+ 1] : pointee.high
  }

  @inline(__always)
  func leaf(_ i: Int) -> LeafRef {
    LeafRef(bitPattern: children[i].load(ordering: .acquiring)).unsafelyUnwrapped
  }

  @inline(__always)
  func node(_ i: Int) -> IndexRef {
    IndexRef(bitPattern: children[i].load(ordering: .acquiring)).unsafelyUnwrapped
  }

  /// Adds a child to a node that is not published yet.
  func append(_ child: ChildEntry) {
    let i = Int(pointee.count)
    assert(i < IndexNode.fanout)
    keys[i] = child.key
    (children + i).initialize(to: Atomic(child.bits))
    (hints + i).initialize(to: Atomic(child.hint))
    pointee.count += 1
  }

  /// The largest of the hints.
  func largestHint() -> UInt64 {
    var largest: UInt64 = 0
    for i in 0..<Int(pointee.count) {
      // Ordered with the raisers: see LayoutTree+Hints.swift.
      let hint = hints[i].load(ordering: .sequentiallyConsistent)
      if hint > largest { largest = hint }
    }
    return largest
  }
}
