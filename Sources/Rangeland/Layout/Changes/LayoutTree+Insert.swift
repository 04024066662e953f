// SPDX-License-Identifier: Apache-2.0
//
// Mapping: a new VMA replaces what is in its range and merges with its neighbours. C2 and C19.
//
// The caller holds the space lock for writing over the range: VMAs inside are frozen; the neighbours and
// the outer parts of VMAs that straddle an end are re-read under the latches.

import SystemPackage

extension LayoutTree {
  /// Maps `range` with `attributes`, merging as Linux does (`__mmap_region`, `vma_merge_new_range`).
  /// Reservations of others in the range go: their owners search again.
  ///
  /// - Parameters:
  ///   - replacing: what is mapped in the range goes (`MAP_FIXED`); otherwise it is an error.
  ///   - areas: how many VMAs more the limit allows: cutting a VMA in the middle makes two.
  ///   - hold: of the range.
  /// - Throws: `.fileExists` when something is mapped there, `.noMemory`; then nothing has changed.
  /// - Precondition: pinned; `range` is page aligned and within the space.
  @inline(__always)
  borrowing func insert(
    _ range: AddressRange, _ attributes: VMAAttributes, replacing: Bool, areas: Int = 2,
    _ hold: borrowing WriteHold, _ context: Context, _ change: inout LayoutChange
  ) throws(Errno) {
    LockMap.observe(.layout, hold, range)
    LockMap.observe(.vmaFlags, hold, range)
    LockMap.observe(.vmaOffset, hold, range)
    var isRefused = false
    let result = splice(
      Self.below(range.start), Self.above(range.end), context, &change,
      { section, splice in
        isRefused = areas < 2 && Self.isInside(section, range)
        return !isRefused
          && planInsert(
            section, range.start, range.end, attributes, replacing: replacing, into: splice)
      })
    guard let result, !isRefused else { throw .noMemory }
    if !result { throw .fileExists }
  }

  /// Whether one VMA reaches beyond both ends of a range.
  @inline(__always)
  private static func isInside(_ section: LeafSection, _ range: AddressRange) -> Bool {
    guard let record = areaAbove(section, range.start) else { return false }
    return record.pointee.start < range.start && record.pointee.end > range.end
  }

  /// The address below, so that the latches cover the neighbour that ends here.
  @inline(__always)
  static func below(_ start: Address) -> Address { start == 0 ? 0 : start &- 1 }

  /// The address above, so that the latches cover the neighbour that starts here.
  @inline(__always)
  static func above(_ end: Address) -> Address { end >= Address.spaceEnd ? end : end &+ 1 }

  /// The VMA on the low side of `address`, under the latches.
  @inline(__always)
  static func areaBelow(_ section: LeafSection, _ address: Address) -> RecordRef? {
    guard address > 0, let record = section.entry(covering: address &- 1),
      !record.pointee.isReservation
    else { return nil }
    return record
  }

  /// The VMA on the high side of `address`, under the latches.
  @inline(__always)
  static func areaAbove(_ section: LeafSection, _ address: Address) -> RecordRef? {
    guard address < Address.spaceEnd, let record = section.entry(covering: address),
      !record.pointee.isReservation
    else { return nil }
    return record
  }

  /// Plans what a new VMA does to the layout; `false` when something is mapped there and may not be replaced.
  @inline(__always)
  borrowing func planInsert(
    _ section: LeafSection, _ start: Address, _ end: Address, _ attributes: VMAAttributes,
    replacing: Bool, into splice: SpliceRef
  ) -> Bool {
    splice.begin(start, end, dropsReservations: true)
    var isTaken = false
    section.forEachEntry(start, end) { record in
      if !replacing && !record.pointee.isReservation {
        isTaken = true
        return false
      }
      // A reservation goes as a whole, though it may reach beyond the range.
      splice.extend(record)
      return true
    }
    if isTaken { return false }
    var draft = RecordDraft(attributes, start, end)
    let left = Self.areaBelow(section, start)
    let right = Self.areaAbove(section, end)
    var mergesLeft = false
    var mergesRight = false
    if let left {
      mergesLeft = left.mergesBelow(
        start, draft.flags, draft.backing, draft.pageOffset, draft.anonymous)
    }
    if let right {
      let isFirst = attributes.growsInPlace && right.pointee.anonymous == nil
      mergesRight = right.mergesAbove(
        end, draft.flags, draft.backing, draft.pageOffset &+ (end &- start) >> 12,
        isFirst ? nil : draft.anonymous)
      if mergesRight && mergesLeft {
        mergesRight = Self.shareIdentity(left.unsafelyUnwrapped, right)
      }
    }
    if let left {
      if mergesLeft {
        draft.start = left.pointee.start
        draft.pageOffset = left.pointee.pageOffset
        draft.backing = left.pointee.backing
        draft.anonymous = left.pointee.anonymous ?? draft.anonymous
        splice.pointee.left = left
      } else if left.pointee.end > start {
        splice.add(RecordDraft(left, left.pointee.start, start))
      }
    }
    guard let right else {
      splice.add(draft)
      return true
    }
    if mergesRight {
      draft.end = right.pointee.end
      if !mergesLeft { draft.backing = right.pointee.backing }
      draft.anonymous = draft.anonymous ?? right.pointee.anonymous
      splice.pointee.right = right
      splice.add(draft)
    } else {
      splice.add(draft)
      if right.pointee.start < end {
        splice.add(RecordDraft(right, end, right.pointee.end))
      }
    }
    return true
  }

  /// Whether two VMAs that a third would join may become one: not two different identities.
  @inline(__always)
  static func shareIdentity(_ left: RecordRef, _ right: RecordRef) -> Bool {
    guard let a = left.pointee.anonymous, let b = right.pointee.anonymous else { return true }
    return isSameMapping(a, b)
  }

  /// Unmaps `range`; VMAs that straddle an end are split (Linux `do_vmi_munmap`, C3). Holes are fine, and
  /// reservations stay.
  ///
  /// - Throws: `.noMemory`, and nothing has changed.
  /// - Precondition: as for `insert`.
  @inline(__always)
  borrowing func remove(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) {
    LockMap.observe(.layout, hold, range)
    let result = splice(
      range.start, range.end, context, &change,
      { section, splice in planRemove(section, range, into: splice) })
    guard let result else { throw .noMemory }
    if result { tidy(range.start, context) }
  }

  /// The same within the limit of mappings.
  ///
  /// - Parameter areas: how many VMAs more it allows.
  @inline(never)
  borrowing func remove(
    _ range: AddressRange, areas: Int, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) {
    LockMap.observe(.layout, hold, range)
    var isRefused = false
    let result = splice(
      range.start, range.end, context, &change,
      { section, splice in
        isRefused = areas < 1 && Self.isInside(section, range)
        return !isRefused && planRemove(section, range, into: splice)
      })
    guard let result, !isRefused else { throw .noMemory }
    if result { tidy(range.start, context) }
  }

  /// Plans what unmapping a range does; `false` = nothing is mapped there.
  @inline(__always)
  private borrowing func planRemove(
    _ section: LeafSection, _ range: AddressRange, into splice: SpliceRef
  ) -> Bool {
    splice.begin(range.start, range.end, dropsReservations: false)
    var isEmpty = true
    section.forEachEntry(range.start, range.end) { record in
      if record.pointee.isReservation { return true }
      isEmpty = false
      if record.pointee.start < range.start {
        splice.add(RecordDraft(record, record.pointee.start, range.start))
      }
      if record.pointee.end > range.end {
        splice.add(RecordDraft(record, range.end, record.pointee.end))
      }
      return true
    }
    return !isEmpty
  }

  /// After entries have gone: joins the leaf of `address` with a neighbour if both are nearly empty.
  @inline(__always)
  private borrowing func tidy(_ address: Address, _ context: Context) {
    let leaf = leaf(for: address)
    if leaf.content.pointee.count > LeafContent.capacity / 4 { return }
    let cellSize = (1 as UInt64) << Self.cellShift
    if leaf.pointee.high &- leaf.pointee.low < cellSize { coalesce(address, context) }
  }
}
