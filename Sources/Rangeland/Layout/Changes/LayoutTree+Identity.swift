// SPDX-License-Identifier: Apache-2.0
//
// The anonymous identity of a VMA: rule 2 of docs/design.md section 4.
//
// It is the one attribute that a fault changes, so the caller holds only its page, for reading: the VMA
// may be split or merged beside it meanwhile. The new record is published under the latches of all the
// leaves that the VMA overlaps, and of its neighbours' borders.
//
// Source: Linux `__anon_vma_prepare`, `find_mergeable_anon_vma`, `reusable_anon_vma`.

import SystemPackage

/// How the VMA came to its identity.
enum IdentityOutcome {
  /// It had one, or got it from another thread first.
  case existing(RecordRef)
  /// A neighbour's identity is shared now.
  case reused(RecordRef)
  /// The candidate is its identity now; the record has taken a reference of its own.
  case published(RecordRef)
  /// No identity to share, and no candidate was given: make one and call again.
  case needsCandidate
}

extension LayoutTree {
  /// Gives the VMA that covers `address` an anonymous identity, once. The record keeps its lock cell.
  ///
  /// - Parameter candidate: an identity with the VMA's distance (`address >> 12` minus page offset) that
  ///   the caller holds a reference of; `nil` to see first whether a neighbour's will do.
  /// - Throws: `.badAddress` when nothing is mapped at `address`, `.noMemory`.
  /// - Precondition: pinned; the page of `address` is held at least for reading.
  borrowing func publishIdentity(
    at address: Address, _ candidate: MappingRef?, _ hold: borrowing ReadHold,
    _ context: Context, _ change: inout LayoutChange
  ) throws(Errno) -> IdentityOutcome {
    LockMap.observe(.anonymousIdentity, hold, AddressRange(pageOf: address))
    var outcome = IdentityOutcome.needsCandidate
    var isMapped = true
    guard let seen = find(address) else { throw .badAddress }
    if seen.pointee.anonymous != nil { return .existing(seen) }
    let result = splice(
      Self.below(seen.pointee.start), Self.above(seen.pointee.end), context, &change,
      { section, splice in
        isMapped = true
        guard let record = Self.areaAbove(section, address) else {
          isMapped = false
          return false
        }
        if record.pointee.anonymous != nil {
          outcome = .existing(record)
          return false
        }
        splice.begin(
          record.pointee.start, record.pointee.end, dropsReservations: false)
        splice.pointee.keepsCell = true
        splice.extend(Self.below(record.pointee.start), Self.above(record.pointee.end))
        if splice.pointee.extentStart < section.low || splice.pointee.extentEnd > section.high {
          return true
        }
        var draft = RecordDraft(record, record.pointee.start, record.pointee.end)
        draft.cell = record.pointee.cell
        if let shared = neighbourIdentity(section, record) {
          outcome = .reused(record)
          draft.anonymous = shared
        } else if let candidate {
          outcome = .published(record)
          draft.anonymous = candidate
        } else {
          outcome = .needsCandidate
          return false
        }
        splice.add(draft)
        return true
      })
    if !isMapped { throw .badAddress }
    guard let result else { throw .noMemory }
    if !result { return outcome }
    guard let record = find(address) else { throw .badAddress }
    switch outcome {
    case .reused: return .reused(record)
    case .published: return .published(record)
    case .existing, .needsCandidate: return outcome
    }
  }

  /// The identity of the next or the previous VMA, if this one may share it.
  borrowing func neighbourIdentity(
    _ section: LeafSection, _ record: RecordRef
  ) -> MappingRef? {
    let start = record.pointee.start
    let end = record.pointee.end
    if let next = Self.areaAbove(section, end),
      let identity = next.reusableIdentity(for: record, touchingAt: end)
    {
      return identity
    }
    if let previous = Self.areaBelow(section, start) {
      return previous.reusableIdentity(for: record, touchingAt: start)
    }
    return nil
  }
}
