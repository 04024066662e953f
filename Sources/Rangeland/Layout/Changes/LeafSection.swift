// SPDX-License-Identifier: Apache-2.0
//
// The leaves that a writer has latched: a run without a hole, ascending.
//
// Nothing in a section waits, allocates from the system or calls out, except the *try* of the space
// lock when a gap is chosen.
// Unranked latches: a section counts its leaves, ascending, as one acquisition.

import RangeLocks

struct LeafSection {
  /// The lowest leaf; the others follow through `nextLatched`.
  let first: LeafRef
  /// The highest leaf.
  let last: LeafRef
  /// How many.
  let count: Int

  /// First address under the latches.
  var low: Address { first.pointee.low }
  /// One past the last address under the latches.
  var high: Address { last.pointee.high }

  /// The entry that covers `address`, which is under the latches.
  @inline(__always)
  func entry(covering address: Address) -> RecordRef? {
    leaf(for: address).content.entry(covering: address)
  }

  /// The leaf that holds `address`, which is under the latches.
  @inline(__always)
  func leaf(for address: Address) -> LeafRef {
    assert(address >= low && address < high)
    var leaf = first
    while address >= leaf.pointee.high { leaf = leaf.pointee.nextLatched.unsafelyUnwrapped }
    return leaf
  }

  /// Calls `body` for every entry that overlaps `[start, end)`, once each, ascending, until it returns
  /// false. The addresses are under the latches.
  @inline(__always)
  func forEachEntry(_ start: Address, _ end: Address, _ body: (RecordRef) -> Bool) {
    var leaf = leaf(for: start)
    var position = start
    while true {
      let content = leaf.content
      var i = content.upperBound(position)
      if i > 0, content.records[i &- 1].pointee.end > position { i &-= 1 }
      while i < content.pointee.count {
        let record = content.records[i]
        if record.pointee.start >= end { return }
        if !body(record) { return }
        position = record.pointee.end
        i &+= 1
      }
      if end <= leaf.pointee.high { return }
      position = max(position, leaf.pointee.high)
      if position >= end { return }
      while position >= leaf.pointee.high { leaf = leaf.pointee.nextLatched.unsafelyUnwrapped }
    }
  }

  /// Unlocks all.
  @inline(__always)
  func unlock() {
    var leaf = first
    for i in 0..<count {
      let next = leaf.pointee.nextLatched
      leaf.pointee.latch.unlock()
      if i &+ 1 < count { leaf = next.unsafelyUnwrapped }
    }
    LockOrder.released(.layoutLeaf)
  }
}

extension LayoutTree {
  /// Latches all leaves over `[start, end)`.
  ///
  /// - Precondition: pinned, no layout latch is held, `start < end <= Address.spaceEnd`.
  @inline(__always)
  borrowing func latch(_ start: Address, _ end: Address) -> LeafSection {
    LockOrder.willWait(.layoutLeaf)
    let first = latchLeaf(start)
    var last = first
    var count = 1
    while last.pointee.high < end {
      let next = latchLeaf(last.pointee.high)
      last.pointee.nextLatched = next
      last = next
      count &+= 1
    }
    LockOrder.acquired(.layoutLeaf)
    return LeafSection(first: first, last: last, count: count)
  }

  @inline(__always)
  private borrowing func latchLeaf(_ address: Address) -> LeafRef {
    while true {
      let leaf = leaf(for: address)
      leaf.pointee.latch.lock()
      if !leaf.pointee.isStray { return leaf }
      leaf.pointee.latch.unlock()
    }
  }
}
