// SPDX-License-Identifier: Apache-2.0
//
// Changing flags: VMA by VMA from left to right, with Linux's merges and splits. V2 and C16.
//
// Source: Linux 6.18 `do_mprotect_pkey`, `mprotect_fixup`, `vma_modify`, `vma_merge_existing_range`.

import SystemPackage

/// What to do with a VMA.
enum FlagsDecision {
  /// It gets these flags. Equal to what it has: it is left alone, and not merged.
  case set(VMAFlags)
  /// Stop here; what was before stays changed.
  case refuse(Errno)
}

/// What a step did: to where, and from which flags to which.
struct ModifyStep {
  /// The addresses that the step has dealt with: where the next step starts is their end.
  let range: AddressRange
  let oldFlags: VMAFlags
  let newFlags: VMAFlags

  var isChange: Bool { oldFlags != newFlags }
}

extension LayoutTree {
  /// Deals with the VMA at `position`, up to `end`: one round of Linux's `mprotect` walk. The caller goes
  /// on at the end of the step until it has reached `end`.
  ///
  /// - Parameters:
  ///   - areas: how many VMAs more the limit allows. Where a second split is one too many, the first one stays, as in
  ///     Linux.
  ///   - decide: called with the VMA, possibly several times, under leaf latches: it must have no effects.
  ///   - confirm: called once with the VMA as it will be, merged or cut, under the leaf latches over all of it, when
  ///     nothing can fail any more. Not called where nothing changes, and without `confirms`.
  /// - Throws: `.noMemory` when nothing is mapped at `position` or there is no memory, `.invalidArgument` for
  ///   a part of a special mapping that may not be cut, or what `decide` refuses with. This step has changed nothing then; earlier ones stay.
  /// - Precondition: pinned; `hold` covers the addresses from `position` to `end`.
  @inline(__always)
  borrowing func modifyStep(
    from position: Address, to end: Address, areas: Int = 2, _ hold: borrowing WriteHold,
    _ context: Context, _ change: inout LayoutChange, _ decide: (RecordRef) -> FlagsDecision,
    confirms: Bool = false, _ confirm: (UnsafeMutablePointer<RecordDraft>) -> Void = { _ in }
  ) throws(Errno) -> ModifyStep {
    guard let seen = find(position) else { throw .noMemory }
    let old = seen.pointee.flags
    switch decide(seen) {
    case .refuse(let errno): throw errno
    case .set(let flags):
      if flags == old {
        return ModifyStep(
          range: AddressRange(start: position, end: min(end, seen.pointee.end)),
          oldFlags: old, newFlags: flags)
      }
    }
    // Held, so what it is stays; its outer parts cannot be cut off by others either.
    if old.contains(.special), seen.forbidsCut(position, end) { throw .invalidArgument }
    var refusal: Errno?
    var new = old
    var stepEnd = end
    let result = splice(
      Self.below(position), Self.above(min(end, seen.pointee.end)), context, &change,
      { section, splice in
        refusal = nil
        guard let record = Self.areaAbove(section, position) else {
          refusal = .noMemory
          return false
        }
        stepEnd = min(end, record.pointee.end)
        switch decide(record) {
        case .refuse(let errno):
          refusal = errno
          return false
        case .set(let flags):
          new = flags
          // The neighbour behind is needed to see whether it merges.
          if stepEnd < Address.spaceEnd && stepEnd >= section.high {
            splice.begin(position, stepEnd, dropsReservations: false)
            splice.extend(position, stepEnd &+ 1)
            return true
          }
          if flags == old { return false }
          planModify(section, record, position, stepEnd, flags, into: splice)
          // A change splits twice at most.
          return areas >= 2 || limitSplits(areas, record, position, stepEnd, splice, &refusal)
        }
      },
      { splice in
        if !confirms { return }
        for i in 0..<splice.pointee.count {
          let draft = splice.draft(i)
          if refusal == nil, draft.pointee.start <= position, position < draft.pointee.end {
            confirm(draft)
          }
        }
      })
    if let refusal { throw refusal }
    if result == nil { throw .noMemory }
    LockMap.observe(.layout, hold, AddressRange(start: position, end: stepEnd))
    LockMap.observe(.vmaFlags, hold, AddressRange(start: position, end: stepEnd))
    LockMap.observe(.vmaOffset, hold, AddressRange(start: position, end: stepEnd))
    return ModifyStep(
      range: AddressRange(start: position, end: stepEnd), oldFlags: old, newFlags: new)
  }

  /// Leaves of a planned change the first split where the limit allows no second one, and says so in `refusal`;
  /// `false` = it allows none.
  @inline(never)
  private borrowing func limitSplits(
    _ areas: Int, _ record: RecordRef, _ start: Address, _ end: Address, _ splice: SpliceRef,
    _ refusal: inout Errno?
  ) -> Bool {
    let isMerge = splice.pointee.left != nil || splice.pointee.right != nil
    let splits = isMerge ? 0 : splice.pointee.count &- 1
    if splits <= areas { return true }
    refusal = .noMemory
    if areas == 0 { return false }
    splice.begin(start, end, dropsReservations: false)
    splice.add(RecordDraft(record, record.pointee.start, start))
    splice.add(RecordDraft(record, start, record.pointee.end))
    return true
  }

  /// Plans Linux's `vma_modify`: `[start, end)` of `record` gets `flags`.
  @inline(__always)
  private borrowing func planModify(
    _ section: LeafSection, _ record: RecordRef, _ start: Address, _ end: Address,
    _ flags: VMAFlags, into splice: SpliceRef
  ) {
    splice.begin(start, end, dropsReservations: false)
    let isLeftSide = start == record.pointee.start
    let isRightSide = end == record.pointee.end
    let anonymous = record.pointee.anonymous
    var draft = RecordDraft(record, start, end)
    draft.flags = flags
    var mergesLeft = false
    if isLeftSide, let left = Self.areaBelow(section, start),
      left.mergesBelow(start, flags, draft.backing, draft.pageOffset, anonymous)
    {
      mergesLeft = true
      splice.pointee.left = left
      draft.start = left.pointee.start
      draft.pageOffset = left.pointee.pageOffset
      draft.backing = left.pointee.backing
      draft.anonymous = left.pointee.anonymous ?? anonymous
    }
    if isRightSide, let right = Self.areaAbove(section, end),
      right.mergesAbove(
        end, flags, record.pointee.backing, record.pointee.pageOffset(at: end), anonymous),
      !mergesLeft || Self.shareIdentity(splice.pointee.left.unsafelyUnwrapped, right)
    {
      splice.pointee.right = right
      draft.end = right.pointee.end
      draft.anonymous = draft.anonymous ?? right.pointee.anonymous
    }
    if !isLeftSide { splice.add(RecordDraft(record, record.pointee.start, start)) }
    splice.add(draft)
    if !isRightSide { splice.add(RecordDraft(record, end, record.pointee.end)) }
  }

  /// Splits the VMA that reaches over `address` there, if one does, and changes nothing else.
  ///
  /// - Throws: `.noMemory`, and nothing has changed.
  /// - Precondition: pinned; `hold` covers the page on one side of `address`.
  borrowing func split(
    at address: Address, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) {
    if address == 0 || address >= Address.spaceEnd { return }
    LockMap.observe(
      .layout, hold,
      AddressRange(pageOf: address < hold.range.end ? address : address &- 1))
    let result = splice(
      Self.below(address), Self.above(address), context, &change,
      { section, splice in
        guard let record = Self.areaAbove(section, address), record.pointee.start < address else {
          return false
        }
        splice.begin(record.pointee.start, record.pointee.end, dropsReservations: false)
        splice.add(RecordDraft(record, record.pointee.start, address))
        splice.add(RecordDraft(record, address, record.pointee.end))
        return true
      })
    if result == nil { throw .noMemory }
  }
}
