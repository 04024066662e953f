// SPDX-License-Identifier: Apache-2.0
//
// Where mappings without an address may go.

/// Bounds of the gap search, Linux's names beside them.
struct PlacementLimits: Sendable {
  /// Hints below are raised to it (`vm.mmap_min_addr`, 4096 as on the kernel that was measured).
  static var smallestHint: Address { 0x1000 }
  /// Where `MAP_32BIT` places, bottom-up (Linux `find_start_end`, here without randomisation).
  static var lowWindow: AddressRange { AddressRange(start: 0x4000_0000, end: 0x8000_0000) }
  /// Nothing is placed below (`vm.mmap_min_addr`).
  var minimum: Address = smallestHint
  /// Top-down placement starts here (`mmap_base`, here without randomisation).
  var topDownBase: Address = 0x7fff_f7ff_f000
  /// Bottom-up placement, tried when top-down has failed, starts here (`TASK_UNMAPPED_BASE`).
  var bottomUpBase: Address = 0x2aaa_aaaa_b000
}

/// A mapping that looks for an address.
struct PlacementRequest {
  /// Bytes, a multiple of the page size, not zero.
  var length: UInt64
  /// Wanted address, page aligned; honoured when the range is free. `nil` = none.
  var hint: Address?
  /// Alignment of the address: a power of two. More than a page is a wish that is dropped when no gap has
  /// room for the length and the alignment (Linux `__thp_get_unmapped_area`).
  var alignment: UInt64 = Address.pageSize
  /// Search in this range only, from below (`MAP_32BIT`: [1 GiB, 2 GiB)).
  var window: AddressRange?
  var placement: Placement = .linux

  /// Bytes of a huge page: anonymous mappings whose length is a multiple are aligned to it when they
  /// have no hint (Linux 6.7 and later).
  static var hugePageSize: UInt64 { 2 << 20 }
}

/// What became of a placement.
enum PlacementOutcome {
  /// The VMA is there, and the closure's lock is held.
  case placed(AddressRange)
  /// The range is reserved: wait for its lock without latches, then `fill` or `cancel`.
  case reserved(Reservation)
}

/// A range that has been chosen for a mapping whose owner waits for its lock.
struct Reservation {
  let range: AddressRange
  /// Of the reservation's record.
  let generation: UInt64
}
