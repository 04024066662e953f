// SPDX-License-Identifier: Apache-2.0
//
// A stack grows: its VMA begins lower, and has an anonymous identity.
//
// The caller holds the pages that are added and the gap below them for writing. The stack itself is not held: it
// is looked at again under the latches.
//
// Source: Linux mm/vma.c `expand_downwards`, `acct_stack_growth`.

import SystemPackage

/// What became of a growth.
enum GrowthOutcome {
  case done
  /// The stack does not begin there any more: look again.
  case changed
  /// It would be longer than allowed. It has its identity now all the same, as in Linux.
  case tooLong
  /// It has no identity yet, and no candidate was given: make one of this distance, and call again.
  case needsCandidate(deltaPages: UInt64)
}

extension LayoutTree {
  /// Lets the stack that begins at `old` begin at `start`.
  ///
  /// - Parameters:
  ///   - isLocked: whether it is locked, as the caller has seen it.
  ///   - longest: bytes that the stack may have then; less than it has: only its identity is published.
  ///   - candidate: an identity with the stack's distance, or `nil`.
  /// - Throws: `.noMemory`, and nothing has changed.
  /// - Precondition: pinned, nothing is mapped in `[start, old)`, which `hold` covers.
  borrowing func grow(
    from old: Address, to start: Address, isLocked: Bool, longest: UInt64,
    _ candidate: MappingRef?, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) -> GrowthOutcome {
    let added = AddressRange(start: start, end: old)
    LockMap.observe(.layout, hold, added)
    LockMap.observe(.anonymousIdentity, hold, added)
    var outcome = GrowthOutcome.changed
    let result = splice(
      Self.below(start), Self.above(old), context, &change,
      { section, splice in
        outcome = .changed
        guard let record = Self.areaAbove(section, old), record.pointee.start == old,
          record.pointee.flags.contains(.growsDown),
          record.pointee.flags.contains(.locked) == isLocked
        else { return false }
        let isTooLong = record.pointee.end &- start > longest
        let first = isTooLong ? old : start
        splice.begin(first, record.pointee.end, dropsReservations: true)
        splice.extend(Self.below(first), Self.above(record.pointee.end))
        if splice.pointee.extentStart < section.low || splice.pointee.extentEnd > section.high {
          // The neighbours are needed to see whether an identity can be shared.
          return true
        }
        section.forEachEntry(first, old) { reservation in
          // A reservation goes as a whole, though it may reach beyond the range.
          splice.extend(reservation)
          return true
        }
        var draft = RecordDraft(record, old, record.pointee.end)
        draft.start = first
        draft.pageOffset = record.pointee.pageOffset &- (old &- first) >> 12
        if draft.anonymous == nil {
          guard let identity = neighbourIdentity(section, record) ?? candidate else {
            outcome = .needsCandidate(deltaPages: (old >> 12) &- record.pointee.pageOffset)
            return false
          }
          draft.anonymous = identity
        } else if isTooLong {
          outcome = .tooLong
          return false
        }
        splice.add(draft)
        outcome = isTooLong ? .tooLong : .done
        return true
      })
    guard result != nil else { throw .noMemory }
    return outcome
  }
}
