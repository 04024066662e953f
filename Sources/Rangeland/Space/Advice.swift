// SPDX-License-Identifier: Apache-2.0
//
// What a caller can advise about a range of pages.
//
// Source: Linux include/uapi/asm-generic/mman-common.h.

/// Advice about how a range is used, or what is to become of its pages. The raw value is Linux's `MADV_*`.
///
/// A space has no swap, no huge pages and no same-page merging yet: advice about those is kept as attributes of
/// the mappings (which split and merge by them), and `pageOut` lets go only of what `free` has released.
public enum Advice: Int32, CaseIterable, Sendable, Hashable {
  // Attributes of mappings.

  /// No particular order of accesses (`MADV_NORMAL`): ends `random` and `sequential`.
  case normal = 0
  /// Accesses in no order (`MADV_RANDOM`).
  case random = 1
  /// Accesses in ascending order (`MADV_SEQUENTIAL`).
  case sequential = 2
  /// A child made by `fork` does not get the mapping (`MADV_DONTFORK`).
  case dontFork = 10
  /// Ends `dontFork` (`MADV_DOFORK`). `EINVAL` for a device.
  case doFork = 11
  /// Equal pages may become one (`MADV_MERGEABLE`). Nothing happens to shared memory and special mappings.
  case mergeable = 12
  /// Ends `mergeable` (`MADV_UNMERGEABLE`).
  case unmergeable = 13
  /// Huge pages are wanted (`MADV_HUGEPAGE`): ends `noHugePage`.
  case hugePage = 14
  /// Huge pages are not wanted (`MADV_NOHUGEPAGE`): ends `hugePage`.
  case noHugePage = 15
  /// Left out of dumps (`MADV_DONTDUMP`).
  case dontDump = 16
  /// Ends `dontDump` (`MADV_DODUMP`). `EINVAL` for a special mapping.
  case doDump = 17
  /// A child made by `fork` finds zeros (`MADV_WIPEONFORK`). `EINVAL` for shared memory and files.
  case wipeOnFork = 18
  /// Ends `wipeOnFork` (`MADV_KEEPONFORK`).
  case keepOnFork = 19

  // Things done to pages.

  /// The pages will be wanted soon (`MADV_WILLNEED`): those of files are read before the call returns. What cannot be read
  /// is no error.
  case willNeed = 3
  /// The pages are thrown away (`MADV_DONTNEED`). `EINVAL` for a locked mapping and a device.
  case dontNeed = 4
  /// The same, of locked mappings too (`MADV_DONTNEED_LOCKED`).
  case dontNeedLocked = 24
  /// The contents may be lost from now on, until a page is written to again (`MADV_FREE`): until it is let go
  /// it reads as before, afterwards as zeros. `EINVAL` for a locked mapping and for all but private memory
  /// without file.
  case free = 8
  /// The contents of a shared object are thrown away, for all who map it (`MADV_REMOVE`): they read as zeros; a file gets
  /// a hole. `EINVAL` for private memory without file, for a special and for a locked mapping; `EACCES` for what may not
  /// be written, or is a private mapping of a file; `ENOTSUP` for an object that cannot have holes.
  case remove = 9
  /// The pages were not used for long (`MADV_COLD`). `EINVAL` for a locked mapping and a device.
  case cold = 20
  /// The pages should leave memory (`MADV_PAGEOUT`): those that `free` has released go, and clean pages of files; those of
  /// shared memory leave this mapping and stay with their object, others have nowhere to go to. `EINVAL` for a locked
  /// mapping and a device.
  case pageOut = 21
  /// As if every page was read (`MADV_POPULATE_READ`).
  case populateRead = 22
  /// As if every page was written to, and its contents kept (`MADV_POPULATE_WRITE`).
  case populateWrite = 23
  /// Huge pages now (`MADV_COLLAPSE`): `EINVAL`, as where they are disabled.
  case collapse = 25
  /// The pages are thrown away, and accesses to them refused as if nothing was mapped, until `removeGuard` or
  /// the end of the mapping (`MADV_GUARD_INSTALL`). Costs no mapping. `EINVAL` for locked and special mappings.
  case installGuard = 102
  /// Ends `installGuard` (`MADV_GUARD_REMOVE`): the pages are as never touched. `EINVAL` for special mappings.
  case removeGuard = 103

  /// Whether it changes attributes of mappings.
  var isAttribute: Bool {
    switch self {
    case .normal, .random, .sequential, .dontFork, .doFork, .mergeable, .unmergeable, .hugePage,
      .noHugePage, .dontDump, .doDump, .wipeOnFork, .keepOnFork:
      true
    default: false
    }
  }

  /// Whether it destroys contents, now or in a child: what a seal is about (Linux `is_discard`).
  var isDiscard: Bool {
    switch self {
    case .dontNeed, .dontNeedLocked, .free, .remove, .dontFork, .wipeOnFork, .installGuard: true
    default: false
    }
  }
}

extension VMARecord {
  /// Whether a seal forbids the advice (Linux `can_madvise_modify`): what its owner could not destroy by
  /// writing stays.
  func isSealed(against advice: Advice) -> Bool {
    flags.contains(.sealed) && advice.isDiscard && backing == nil && !flags.contains(.write)
  }
}
