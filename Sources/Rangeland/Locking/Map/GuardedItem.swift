// SPDX-License-Identifier: Apache-2.0
//
// The guarded items of the lock map and the locks that guard them.

/// A piece of state that some lock guards, named by its id in the mission's acceptance table.
public enum GuardedItem: UInt8, CaseIterable, Sendable {
  /// Which records exist and where they begin and end.
  case layout
  /// The gap that a mapping without an address gets.
  case gapSearch
  /// Flags and protection of a VMA.
  case vmaFlags
  /// Page offset of a VMA.
  case vmaOffset
  /// Anonymous identity of a VMA (Linux anon_vma).
  case anonymousIdentity
  /// Rights of present pages against their VMA.
  case pageProtection
  /// Page table entries.
  case pageTableEntry
  /// Creation and removal of page tables.
  case pageTableShape
  /// An object's set of mappings.
  case reverseMap
  /// Pages of a shared object.
  case objectPages
  /// Memory policies of a shared object's pages.
  case memoryPolicy
  /// Markers of code, data, heap, stack, arguments and environment.
  case markers
  /// A word of the owner.
  case opaqueWord
  /// Where the vdso stands.
  case contextBase
  /// Counters by pages: total_vm, data_vm, exec_vm, stack_vm, locked_vm, map_count.
  case accounting
  /// Resident set counters.
  case residency
  /// The locks of new mappings (Linux def_flags).
  case futureLock

  /// The id in the acceptance table.
  public var id: String {
    switch self {
    case .layout: "P2"
    case .gapSearch: "C1"
    case .vmaFlags: "V2"
    case .vmaOffset: "V5"
    case .anonymousIdentity: "V+anon_vma"
    case .pageProtection: "P4"
    case .pageTableEntry: "P4-entries"
    case .pageTableShape: "P4-tables"
    case .reverseMap: "rmap"
    case .objectPages: "page-cache"
    case .memoryPolicy: "V6"
    case .markers: "M5"
    case .opaqueWord: "M6"
    case .contextBase: "M9"
    case .accounting: "M3"
    case .residency: "C10"
    case .futureLock: "M10"
    }
  }

  /// What it is.
  public var title: String {
    switch self {
    case .layout: "VMA layout: which records exist and where they begin and end"
    case .gapSearch: "the gap that a mapping without an address gets"
    case .vmaFlags: "flags and protection of a VMA"
    case .vmaOffset: "page offset of a VMA"
    case .anonymousIdentity: "anonymous identity of a VMA (Linux anon_vma)"
    case .pageProtection: "rights of present pages against their VMA"
    case .pageTableEntry: "page table entries"
    case .pageTableShape: "creation and removal of page tables"
    case .reverseMap: "an object's set of mappings"
    case .objectPages: "pages of a shared object"
    case .memoryPolicy: "memory policies of a shared object's pages"
    case .markers: "markers of code, data, heap, stack, arguments and environment"
    case .opaqueWord: "a word of the owner"
    case .contextBase: "where the vdso stands"
    case .accounting: "total_vm, data_vm, exec_vm, stack_vm, locked_vm, map_count"
    case .residency: "resident set counters"
    case .futureLock: "the locks of new mappings (Linux def_flags)"
    }
  }
}

/// A lock of the lock-order tree, as the lock map names it.
public enum MapLock: UInt8, CaseIterable, Sendable {
  /// The space lock (under `.perVMA` readers: the VMA's lock word).
  case space
  /// An object's, over its set of mappings and its pages.
  case objectMappings
  /// Of a leaf of the tree of mappings, while its records change.
  case layoutLeaf
  /// Of the tree of mappings, while leaves come and go.
  case layoutShape
  /// Of a page table, over its entries.
  case pageTable
  /// Per-thread credit: no lock at all, each thread writes its own slot.
  case credit

  /// The name in reports.
  public var name: String {
    switch self {
    case .space: "space lock"
    case .objectMappings: "object latch"
    case .layoutLeaf: "layout leaf latch"
    case .layoutShape: "layout shape latch"
    case .pageTable: "page-table latch"
    case .credit: "none: per-thread credit"
    }
  }

  /// Its level in the lock-order tree; `nil` for the space lock, which a hold proves, and for credit.
  var rank: LockRank? {
    switch self {
    case .space, .credit: nil
    case .objectMappings: .objectMappings
    case .layoutLeaf: .layoutLeaf
    case .layoutShape: .layoutShape
    case .pageTable: .pageTable
    }
  }
}
