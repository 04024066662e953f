// SPDX-License-Identifier: Apache-2.0
//
// The judge is judged: semantic mistakes that an address space could make, each of which it has to find.
//
// They are made here, between the judge and a correct space, so that the normal build has no trace of
// them.

/// A planted mistake.
enum Mistake: String, CaseIterable, Sendable {
  /// An unaligned hint is rounded up.
  case hintRoundedUp
  /// A hint is ignored.
  case hintIgnored
  /// Mappings that differ in their anonymous identity are one.
  case mergesAcrossIdentity
  /// Mappings that were never written and differ in the commit charge are one.
  case mergesAcrossCharge
  /// A new mapping is not joined with the one above it.
  case noMergeRight
  /// Shared mappings that touch are one, as if they had one object.
  case mergesShared
  /// mprotect over a hole changes nothing, where Linux keeps what came before it.
  case protectRolledBack
  /// mprotect goes on behind a hole.
  case protectBehindHole
  /// mprotect changes the whole mapping instead of its part.
  case protectWholeMapping
  /// What could be written stays so after mprotect.
  case protectLeavesWrite
  /// madvise stops at a hole.
  case adviceStopsAtHole
  /// DONTNEED keeps the pages.
  case adviceKeepsPages
  /// DONTNEED empties shared memory.
  case adviceEmptiesShared
  /// DONTNEED leaves the page that its length begins.
  case adviceRoundsDown
  /// munmap of a hole is ENOMEM.
  case unmapOfHoleFails
  /// munmap leaves the page that its length begins.
  case unmapRoundsDown
  /// munmap checks the length before the alignment... and reports ENOMEM for a range beyond the end.
  case unmapErrno
  /// A fixed address is checked for its alignment before its end.
  case fixedErrnoOrder
  /// No-replace looks at the first page only.
  case noReplaceFirstPage
  /// No-replace takes a neighbour that touches for an overlap.
  case noReplaceTouching
  /// Placement leaves a page free below the mapping above: a guard that is off by one.
  case guardPage
  /// Lengths of whole huge pages are not aligned to them.
  case noHugeAlignment
  /// Memory that may be written and not read refuses loads.
  case writeOnlyNotReadable
  /// A refused access reports MAPERR where it is ACCERR.
  case faultCode
  /// A first load leaves no page behind.
  case loadNotResident
  /// The offset of a piece of shared memory does not follow its address.
  case offsetStays
  /// Replaced pages stay counted in the size.
  case replacedStaysCounted
  /// A new mapping shows what was mapped there before.
  case contentsLeak
}

extension Mistake {
  /// Random operations within which each of them is found.
  static var foundWithin: Int { 40_000 }
}
