// SPDX-License-Identifier: Apache-2.0
//
// Finding records. Readers take no lock: the caller is pinned, and what is found stays readable, and
// true of the instant of the call, until it unpins.

extension LayoutTree {
  /// The leaf that holds `address`, which is below `Address.spaceEnd`.
  @inline(__always)
  borrowing func leaf(for address: Address) -> LeafRef {
    var node = rootNode
    while node.pointee.level > 0 { node = node.node(node.slot(for: address)) }
    return node.leaf(node.slot(for: address))
  }

  /// The entry that covers `address`, a reservation included.
  @inline(__always)
  borrowing func entry(covering address: Address) -> RecordRef? {
    if address >= Address.spaceEnd { return nil }
    return leaf(for: address).content.entry(covering: address)
  }

  /// The VMA that covers `address` (Linux `vma_lookup`).
  ///
  /// - Precondition: the thread is pinned.
  @inline(__always)
  borrowing func find(_ address: Address) -> RecordRef? {
    guard let record = entry(covering: address), !record.pointee.isReservation else { return nil }
    return record
  }

  /// The first VMA that ends above `address`; it may start above it (Linux `find_vma`).
  ///
  /// - Precondition: the thread is pinned.
  borrowing func findNext(_ address: Address) -> RecordRef? {
    firstEntry(endingAbove: address) { !$0.pointee.isReservation }
  }

  /// The first VMA that overlaps `[start, end)`; touching is not overlapping (Linux
  /// `find_vma_intersection`).
  ///
  /// - Precondition: the thread is pinned.
  borrowing func findIntersection(_ start: Address, _ end: Address) -> RecordRef? {
    guard let record = findNext(start), record.pointee.start < end else { return nil }
    return record
  }

  /// The last VMA that starts below `address` (Linux `find_vma_prev`, when `address` starts a VMA).
  ///
  /// - Precondition: the thread is pinned.
  borrowing func findPrevious(_ address: Address) -> RecordRef? {
    var limit = min(address, Address.spaceEnd)
    while limit > 0 {
      let leaf = leaf(for: limit - 1)
      let content = leaf.content
      var i = content.upperBound(limit - 1)
      while i > 0 {
        i -= 1
        if !content.records[i].pointee.isReservation { return content.records[i] }
      }
      limit = leaf.pointee.low
    }
    return nil
  }

  /// The first entry that ends above `address` and satisfies `condition`. Leaves from `bound` on are not
  /// looked at: who needs no entry from there on does not touch what other threads write there.
  @inline(__always)
  borrowing func firstEntry(
    endingAbove address: Address, below bound: Address = Address.spaceEnd,
    where condition: (RecordRef) -> Bool
  ) -> RecordRef? {
    var position = address
    while position < bound {
      let leaf = leaf(for: position)
      let content = leaf.content
      var i = content.upperBound(position)
      if i > 0, content.records[i - 1].pointee.end > position { i -= 1 }
      while i < content.pointee.count {
        if condition(content.records[i]) { return content.records[i] }
        i += 1
      }
      position = leaf.pointee.high
    }
    return nil
  }

  /// Calls `body` for every VMA that overlaps `range`, ascending, with the part of it that has not been
  /// reported; stops when `body` returns false.
  ///
  /// A VMA that exists throughout the call is reported exactly once and whole, and no address that is
  /// mapped throughout is left out: each leaf is read at one instant, in which it is the truth about its
  /// addresses, and a record that reaches beyond a leaf is in the next one too. A VMA that changes
  /// meanwhile is reported as it was before or after, cut where an earlier report has ended.
  ///
  /// - Precondition: the thread is pinned. The records are valid until it unpins.
  borrowing func forEachRecord(
    in range: AddressRange, _ body: (RecordRef, AddressRange) -> Bool
  ) {
    var position = range.start
    var reported = range.start
    var isFirst = true
    let end = min(range.end, Address.spaceEnd)
    while position < end {
      let leaf = leaf(for: position)
      let content = leaf.content
      for i in 0..<content.pointee.count {
        let record = content.records[i]
        if record.pointee.start >= end { return }
        if record.pointee.end <= reported || record.pointee.isReservation { continue }
        let start = isFirst ? record.pointee.start : max(record.pointee.start, reported)
        if !body(record, AddressRange(start: start, end: record.pointee.end)) { return }
        reported = record.pointee.end
        isFirst = false
      }
      position = leaf.pointee.high
    }
  }

  /// What is mapped in `range`, in VMAs and pages; VMAs that straddle an end count with the pages inside.
  /// Exact when the caller holds the range.
  ///
  /// - Precondition: the thread is pinned.
  borrowing func usage(in range: AddressRange) -> LayoutCounts {
    var counts = LayoutCounts()
    forEachRecord(in: range) { record, part in
      let start = max(part.start, range.start)
      let end = min(part.end, range.end)
      counts.count(record.pointee.flags, pages: (end - start) >> 12, sign: 1)
      return true
    }
    return counts
  }

  /// Whether every page of a held range is mapped.
  borrowing func covers(_ range: AddressRange) -> Bool {
    var position = range.start
    while position < range.end {
      guard let record = find(position) else { return false }
      position = record.pointee.end
    }
    return true
  }

  /// Whether a VMA of a held range is sealed.
  borrowing func hasSeal(in range: AddressRange) -> Bool {
    var position = range.start
    while position < range.end, let record = findNext(position), record.pointee.start < range.end {
      if record.pointee.flags.contains(.sealed) { return true }
      position = record.pointee.end
    }
    return false
  }
}
