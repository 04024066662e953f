// SPDX-License-Identifier: Apache-2.0
//
// The declared rows of the lock map. Ranges are those of policy `.ranged`.

/// The operations that change the layout under the space lock for writing.
private enum LayoutChanges {
  /// That make VMAs, or give them other attributes.
  static let ofFlags: [OperationKind] = [
    .map, .remap, .protect, .setAdvice, .seal, .setPolicy, .substitute, .insertSpecial, .setBreak,
    .lockMemory, .remapPages,
  ]
  static let all: [OperationKind] = ofFlags + [.unmap, .growStack, .exit]
  /// A fork has the whole space, and writes the layout of the new one.
  static let andFork: [OperationKind] = all + [.fork]
}

extension LockMap {
  private static let pages = "the operation's pages"
  private static let page = "the page"

  /// Every row, by item.
  public static let rows: [Row] =
    layoutRows + vmaRows + pagingRows + objectRows + noteRows + counterRows

  private static let layoutRows: [Row] = [
    Row(
      item: .layout, lock: .space, mode: .write, range: pages,
      reason:
        "freezes the records inside, so that what is read before the change is what is changed",
      operations: LayoutChanges.andFork),
    Row(
      item: .layout, lock: .space, mode: .read, range: "the page or pages looked up",
      reason: "the record that was found stays the true one for these pages until the hold ends",
      operations: [.fault, .dontNeed, .advise, .populate, .residency, .synchronize, .pin]),
    Row(
      item: .layout, lock: .space, mode: .write, range: "where pages that are gone stood",
      reason: "faults that had found a page before it went have ended",
      operations: [.truncate]),
    Row(
      item: .layout, lock: .layoutLeaf, mode: .write,
      range: "the leaves of the records that change",
      reason: "neighbours and outer parts are read again and spliced in one step",
      operations: LayoutChanges.andFork + [.fault, .advise, .populate, .pin]),
    Row(
      item: .layout, lock: .layoutShape, mode: .write,
      range: "index nodes above a leaf that is divided",
      reason: "readers go down without locks while nodes are copied; nothing else is held inside",
      operations: LayoutChanges.andFork),
    Row(
      item: .gapSearch, lock: .layoutLeaf, mode: .write, range: "the leaves of the chosen gap",
      reason: "choosing and reserving is one step, so two searches never choose overlapping gaps",
      operations: [.map, .remap, .insertSpecial]),
  ]

  private static let vmaRows: [Row] = [
    Row(
      item: .vmaFlags, lock: .space, mode: .write, range: pages,
      reason: "a fault must not install rights that are being taken away",
      operations: LayoutChanges.ofFlags + [.fork]),
    Row(
      item: .vmaFlags, lock: .space, mode: .read, range: page,
      reason:
        "the rights that a fault checks are those that it installs; advice is refused by flags",
      operations: [.fault, .dontNeed, .advise, .populate, .synchronize, .pin]),
    Row(
      item: .vmaOffset, lock: .space, mode: .write, range: pages,
      reason: "pieces of a split continue the offset; merging depends on it",
      operations: LayoutChanges.ofFlags + [.fork]),
    Row(
      item: .anonymousIdentity, lock: .space, mode: .read, range: page,
      reason:
        "a record with an identity is published once for each VMA; reading is enough, as in Linux",
      operations: [.fault, .advise, .populate, .pin]),
    Row(
      item: .anonymousIdentity, lock: .space, mode: .write, range: "the pages that move or grow",
      reason:
        "the new place continues the identity of the old one, which no page of it gets meanwhile",
      operations: [.remap]),
    Row(
      item: .anonymousIdentity, lock: .space, mode: .write,
      range: "the pages that a stack grows by, and the gap below",
      reason: "the stack itself is not held: like a fault, growth publishes an identity once",
      operations: [.growStack]),
    Row(
      item: .anonymousIdentity, lock: .space, mode: .write, range: "the whole space",
      reason:
        "no identity may appear between the copy of a VMA and that of its pages",
      operations: [.fork]),
    Row(
      item: .anonymousIdentity, lock: .space, mode: .write, range: pages,
      reason: "locked memory that becomes writable gets its pages at once, as faults would",
      operations: [.protect]),
    Row(
      item: .futureLock, lock: .space, mode: .write, range: "the whole space",
      reason: "what is mapped and what will be is locked in one step",
      operations: [.lockMemory]),
    Row(
      item: .futureLock, lock: .space, mode: .write, range: "the pages of the new mapping",
      reason: "whoever changes them holds all pages",
      operations: [.map, .setBreak, .remapPages]),
  ]

  private static let pagingRows: [Row] = [
    Row(
      item: .pageProtection, lock: .space, mode: .write, range: pages,
      reason: "no fault may grant an old right after the entries were restricted",
      operations: [.protect, .fork]),
    Row(
      item: .pageProtection, lock: .pageTable, mode: .write, range: "a page table",
      reason: "entries are changed while accessors mark them as cached",
      operations: [.protect, .fork]),
    Row(
      item: .pageTableEntry, lock: .space, mode: .read, range: "the page or pages",
      reason: "faults meet at the table's latch; a page thrown away is there or gone, both right",
      operations: [.fault, .dontNeed, .advise, .populate, .residency, .written, .pin]),
    Row(
      item: .pageTableEntry, lock: .space, mode: .write, range: pages,
      reason: "no page may appear where no record is any more, nor one behind the end of its file",
      operations: [
        .map, .unmap, .remap, .substitute, .setBreak, .exit, .remapPages, .truncate, .fork,
      ]),
    Row(
      item: .pageTableEntry, lock: .space, mode: .write, range: pages,
      reason: "locked memory that becomes writable gets its pages at once, as faults would",
      operations: [.protect]),
    Row(
      item: .pageTableEntry, lock: .pageTable, mode: .write, range: "a page table",
      reason: "one of several faults installs; the others find its page",
      operations: [
        .fault, .dontNeed, .advise, .populate, .map, .unmap, .remap, .substitute, .setBreak, .exit,
        .fork, .protect, .remapPages, .truncate, .written, .writeBack, .pin,
      ]),
    Row(
      item: .pageTableShape, lock: .pageTable, mode: .write,
      range: "the parent's table, then the table",
      reason:
        "one of several faults makes a table; it is freed empty and marked stray, and whoever installs looks",
      operations: [
        .fault, .advise, .populate, .map, .unmap, .remap, .substitute, .setBreak, .exit, .fork,
        .protect, .remapPages, .pin,
      ]),
  ]

  private static let objectRows: [Row] = [
    Row(
      item: .reverseMap, lock: .objectMappings, mode: .write, range: "the object",
      reason:
        "mappings join when an object is mapped or an identity is made, and go with their last record",
      operations: LayoutChanges.andFork + [.fault, .advise, .populate, .pin, .synchronize]),
    Row(
      item: .reverseMap, lock: .objectMappings, mode: .read, range: "the object",
      reason: "from an object to the page tables that map it; their latches come inside",
      operations: [.advise, .truncate, .writeBack]),
    Row(
      item: .objectPages, lock: .pageTable, mode: .read, range: "the object",
      reason: "a page that is found keeps a reference before the object may let it go",
      operations: [.fault, .populate, .residency, .protect, .pin]),
    Row(
      item: .objectPages, lock: .pageTable, mode: .write, range: "the object",
      reason:
        "one page for each index, whoever asks first; pages that go are marked, or behind the end",
      operations: [.fault, .populate, .advise, .protect, .truncate, .writeBack, .pin]),
  ]

  private static let noteRows: [Row] = [
    Row(
      item: .memoryPolicy, lock: .pageTable, mode: .write, range: "the object",
      reason: "ranges of pages are cut and replaced in one step",
      operations: [.setPolicy]),
    Row(
      item: .memoryPolicy, lock: .pageTable, mode: .read, range: "the object",
      reason: "a page has the policy that it had at some instant of the call",
      operations: [.query]),
    Row(
      item: .markers, lock: .space, mode: .write, range: "the whole space",
      reason: "the heap's bounds change with the others, and no break may move meanwhile",
      operations: [.configure]),
    Row(
      item: .opaqueWord, lock: .space, mode: .write, range: "the whole space",
      reason: "it changes beside no operation",
      operations: [.configure]),
    Row(
      item: .contextBase, lock: .space, mode: .write, range: "the old and the new place",
      reason: "the word follows the mapping in one step with the move",
      operations: [.remap]),
    Row(
      item: .contextBase, lock: .space, mode: .read, range: "the mapping",
      reason: "the mapping still stands where it was inserted when the word says so",
      operations: [.insertSpecial]),
  ]

  private static let counterRows: [Row] = [
    Row(
      item: .accounting, lock: .credit, mode: .write, range: "the thread's own slot",
      reason: "nothing shared where ranges are disjoint; sums are exact when nobody runs",
      operations: LayoutChanges.andFork + [.configure]),
    Row(
      item: .residency, lock: .credit, mode: .write, range: "the thread's own slot",
      reason: "as above",
      operations: [
        .fault, .dontNeed, .advise, .populate, .map, .unmap, .remap, .substitute, .setBreak, .exit,
        .fork, .protect, .remapPages, .truncate, .writeBack, .pin,
      ]),
  ]
}
