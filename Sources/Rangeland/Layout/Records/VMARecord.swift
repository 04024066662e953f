// SPDX-License-Identifier: Apache-2.0
//
// One VMA as it stood at some instant. P2, V2 and V5 of the lock map.
//
// Guarantee: all of a published record but what belongs to the thread that dropped it is immutable, so a reader that is
//   pinned sees flags, bounds and offset of one instant, never a mix.
// Mechanism: a change publishes new records in the leaves that the VMA overlaps and drops the old ones,
//   which live until every reader that was pinned has unpinned.
// Cost: one slab node of 128 bytes, with the word of VMACache.swift behind the record; each record counts once in the references of its mappings.
// Source: Linux `struct vm_area_struct`; rule 1 of docs/design.md section 4.

typealias RecordRef = UnsafeMutablePointer<VMARecord>

struct VMARecord {
  /// First address, page aligned.
  let start: Address
  /// One past the last address, page aligned.
  let end: Address
  let flags: VMAFlags
  /// Whether the lock cell goes with this record when it is dropped. Written by the thread that dropped
  /// the record, read by nobody else.
  var dropsCell: Bool
  /// Of a special mapping that was dropped: how many pieces of it are new, and whether a piece is gone.
  /// Written and read by the thread that dropped the record.
  var pieces: UInt8 = 0
  var isRemoved = false
  /// Page index in the object of the first page; private anonymous memory has `start >> 12` at its
  /// creation (Linux `vm_pgoff`).
  let pageOffset: UInt64
  /// What is mapped; `nil` = private anonymous memory.
  let backing: MappingRef?
  /// Anonymous identity (Linux `anon_vma`); `nil` until the first anonymous fault.
  let anonymous: MappingRef?
  /// The lock word of the VMA under policy `.perVMA`.
  let cell: VMACellRef?
  /// Never used twice in one physical memory, and not 0: tells a record from a later one in the same memory.
  let generation: UInt64
  /// Next of a chain of dropped records. Belongs to the thread that dropped the record.
  var nextDropped: RecordRef?

  /// Whether this is a chosen range that somebody waits for, and no VMA.
  @inline(__always)
  var isReservation: Bool { flags.contains(.reservation) }

  /// The addresses of the VMA.
  @inline(__always)
  var range: AddressRange { AddressRange(start: start, end: end) }

  /// Pages in the VMA.
  @inline(__always)
  var pageCount: UInt64 { (end - start) >> 12 }

  /// The page index in the object that stands at `address`, which lies in the VMA or at its end.
  @inline(__always)
  func pageOffset(at address: Address) -> UInt64 { pageOffset &+ (address &- start) >> 12 }

  /// Pages below a stack where nothing is placed (Linux `stack_guard_gap`).
  static var guardGapPages: UInt64 { 256 }

  /// Where the addresses end that may be used below this VMA (Linux `vm_start_gap`).
  @inline(__always)
  var startWithGuard: Address {
    guard flags.contains(.growsDown) else { return start }
    let gap = Self.guardGapPages * Address.pageSize
    return start > gap ? start - gap : 0
  }
}

/// What a new VMA is made of, without its addresses.
struct VMAAttributes {
  var flags: VMAFlags
  /// Page index in the object of the first page; `nil` = the number of the first page of the mapping, as
  /// for private anonymous memory.
  var pageOffset: UInt64?
  /// What is mapped. The layout takes references of its own; the caller keeps the one it has.
  var backing: MappingRef?
  /// An identity to begin with (a moved or copied VMA).
  var anonymous: MappingRef?
  /// Whether the caller asked for a lock (`MAP_LOCKED`), which may be refused to him as such.
  var asksForLock = false
  /// The VMA below becomes longer: then Linux does not ask whether a fork made it before it merges with one above that
  /// has no identity (`vma_merge_extend`, which names no VMA that is copied).
  var growsInPlace = false

  init(
    flags: VMAFlags, pageOffset: UInt64? = nil, backing: MappingRef? = nil,
    anonymous: MappingRef? = nil
  ) {
    self.flags = flags
    self.pageOffset = pageOffset
    self.backing = backing
    self.anonymous = anonymous
  }
}
