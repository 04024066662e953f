// SPDX-License-Identifier: Apache-2.0
//
// Finding gaps, without locks: what is found is checked again under the latches.
//
// Guarantee: on a layout that does not change meanwhile, the address that Linux would give.
// Cost: top-down, a few nodes per level by the hints; without hints and bottom-up, every leaf.
// Source: Linux 6.18 mm/vma.c `unmapped_area_topdown`, `unmapped_area`.

extension LayoutTree {
  /// The highest address from which `length` bytes are free below `high`, aligned; like Linux, only in a
  /// gap with room for the length and the alignment together.
  borrowing func topDownGap(
    _ length: UInt64, _ alignment: UInt64, above low: Address, below high: Address,
    usingHints: Bool
  ) -> Address? {
    let slack = alignment > Address.pageSize ? alignment : 0
    let (needed, overflow) = length.addingReportingOverflow(slack)
    if overflow || high <= low || high - low < needed { return nil }
    var high = high
    var limit = high
    while limit > low {
      let leaf: LeafRef
      if usingHints {
        guard let found = promisingLeaf(below: limit, above: low, needed: needed) else {
          return nil
        }
        leaf = found
      } else {
        leaf = self.leaf(for: limit - 1)
      }
      let before = high
      if let end = highestGap(in: leaf, needed, low, &high) {
        return (end - length) & ~(alignment - 1)
      }
      limit = high < before ? high : leaf.pointee.low
    }
    return nil
  }

  /// The end of the highest gap of at least `needed` bytes within `[low, high)` that touches the leaf.
  ///
  /// A gap that is long enough but ends in the guard gap of a stack ends the search above the start of the guard gap
  /// (`high` is lowered to it, and the result is `nil`): Linux looks for gaps without regard to stacks, and then begins
  /// again below the guard gap, although there may be mappings, and gaps between them, within it.
  private borrowing func highestGap(
    in leaf: LeafRef, _ needed: UInt64, _ low: Address, _ high: inout Address
  ) -> Address? {
    let content = leaf.content
    let top = min(leaf.pointee.high, high)
    var i = content.upperBound(top - 1)
    // Where the gap ends whose start we look for: the next entry above, its guard gap included.
    var above: RecordRef? = i < content.pointee.count ? content.records[i] : nil
    var gapEnd = above?.pointee.start ?? high
    if i > 0, content.records[i - 1].pointee.end >= top {
      // What follows that entry is a gap of the leaf above.
      gapEnd = top
      above = nil
    } else if i == content.pointee.count {
      // The gap may go on above the leaf, or something there has a guard gap.
      let bound = min(high &+ VMARecord.guardGapPages * Address.pageSize, Address.spaceEnd)
      if let next = firstEntry(endingAbove: top, below: bound, where: { _ in true }) {
        gapEnd = next.pointee.start
        above = next
      }
    }
    gapEnd = min(gapEnd, high)
    while true {
      var gapStart: Address
      if i > 0 {
        gapStart = content.records[i - 1].pointee.end
      } else {
        gapStart = leaf.pointee.low
        if gapStart < gapEnd {
          gapStart = endBelow(gapStart, low: low, enough: gapEnd, needed)
        }
      }
      gapStart = max(gapStart, low)
      if gapEnd > gapStart, gapEnd - gapStart >= needed {
        guard let above, above.pointee.startWithGuard < gapEnd else { return gapEnd }
        high = above.pointee.startWithGuard
        return nil
      }
      if i == 0 { return nil }
      i -= 1
      above = content.records[i]
      gapEnd = min(content.records[i].pointee.start, high)
      if gapEnd <= low { return nil }
    }
  }

  /// The end of the last entry below `address`, or an address from which the gap is long enough.
  private borrowing func endBelow(
    _ address: Address, low: Address, enough gapEnd: Address, _ needed: UInt64
  ) -> Address {
    var position = address
    while position > low, gapEnd - position < needed {
      let leaf = leaf(for: position - 1)
      let content = leaf.content
      let i = content.upperBound(position - 1)
      if i > 0 { return min(position, content.records[i - 1].pointee.end) }
      position = leaf.pointee.low
    }
    return position
  }

  /// The lowest aligned address from which `length` bytes are free in `[low, high)`.
  borrowing func bottomUpGap(
    _ length: UInt64, _ alignment: UInt64, from low: Address, below high: Address
  ) -> Address? {
    let slack = alignment > Address.pageSize ? alignment : 0
    let (needed, overflow) = length.addingReportingOverflow(slack)
    if overflow { return nil }
    var gapStart = low
    while gapStart < high, high - gapStart >= needed {
      let next = firstEntry(endingAbove: gapStart, where: { _ in true })
      let gapEnd = min(next?.pointee.startWithGuard ?? high, high)
      if gapEnd > gapStart, gapEnd - gapStart >= needed {
        return (gapStart + alignment - 1) & ~(alignment - 1)
      }
      guard let next else { return nil }
      gapStart = next.pointee.end
    }
    return nil
  }

  /// Whether `[start, start + length)` is free for a hint: the guard gap of a stack above counts.
  borrowing func isFree(_ start: Address, _ length: UInt64) -> Bool {
    let (end, overflow) = start.addingReportingOverflow(length)
    if overflow || end > Address.spaceEnd { return false }
    guard let next = firstEntry(endingAbove: start, where: { _ in true }) else { return true }
    return end <= next.pointee.startWithGuard
  }
}
