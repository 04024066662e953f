// SPDX-License-Identifier: Apache-2.0
//
// What a VMA maps.
//
// Guarantee: reference counts are exact; an object lives while a mapping or a handle refers to it, and
//   its memory while a reader is pinned.
// Mechanism: one latch guards the set of mappings (doubly linked), another the pages: a radix tree of
//   64-way nodes from page index to frame.
// Cost: 112 bytes; a page is found in one latch and at most 11 loads, typically 2 or 3.
// Source: Linux `struct anon_vma`, `struct address_space` (`i_mmap`, `i_pages`).

import RangeLocks
import Synchronization

typealias ObjectRef = UnsafeMutablePointer<MemoryObject>

/// What an object is.
enum ObjectKind: UInt8, Sendable {
  /// Linux `anon_vma->root`: stands for private pages, which only the page tables refer to. All that descend from
  /// one VMA by forks share it, however many generations lie between: see `ObjectMapping.branch`.
  case anonymousIdentity
  /// Memory that spaces share; its pages are filled with zeros and counted as shared memory.
  case sharedAnonymous
  /// A file: one that is read and written back, or one by an identity that the maker chose, whose pages are
  /// filled with zeros.
  case file
  /// Supplied by a special mapping, whose address is the identity.
  case special
}

struct MemoryObject: ~Copyable {
  /// Immutable.
  let kind: ObjectKind
  /// The maker's name for it: a file's number. Immutable.
  let identity: UInt64
  /// The last page that it can have: shared memory has a size, and a mapping that was made longer
  /// than that faults behind it, as on Linux. Immutable.
  let lastPage: UInt64
  /// Where its pages come from. Immutable.
  let arena: UnsafeMutablePointer<FrameArena>
  /// One per mapping and per handle. The one that drops it to 0 frees the object.
  let references = Atomic<UInt64>(1)

  /// Guards the mapping set. Rank: object mappings.
  let latch = Latch()
  /// Held while pages of shared memory are being taken out: who needs one of them waits for it, and who moves some to
  /// other addresses holds it. Rank: object removal.
  let removalLatch = Latch()
  /// First mapping. Guarded by `latch`.
  var mappings: MappingRef?

  /// Guards the pages. Taken with no page-table latch held, so it has their rank.
  let pagesLatch = Latch()
  /// Levels of the radix tree; 0 = no pages ever. Guarded by `pagesLatch`.
  var pagesHeight: Int32 = 0
  /// Guarded by `pagesLatch`.
  var pagesRoot: UnsafeMutablePointer<ObjectIndexNode>?
  /// Policies of pages, of shared memory only. Guarded by `pagesLatch`.
  var policies: PolicyRangeRef?
  /// Pages in the tree. Written under `pagesLatch`.
  let pageCount = Atomic<UInt64>(0)

  /// Where a file's object is found; `nil` = nowhere. Set before anybody else knows the object.
  var files: FileObjectsRef?
  /// Next of its chain there. Guarded by that latch.
  var nextFile: ObjectRef?
  /// Of a file whose contents are read and written back; `nil` for others. Set before anybody else knows the object.
  var file: FileStateRef?

  init(
    kind: ObjectKind, identity: UInt64, lastPage: UInt64, arena: UnsafeMutablePointer<FrameArena>
  ) {
    self.kind = kind
    self.identity = identity
    self.lastPage = lastPage
    self.arena = arena
  }

  /// A new object with one reference, the caller's; `nil` without memory.
  static func make(
    _ kind: ObjectKind, identity: UInt64 = 0, lastPage: UInt64 = .max,
    _ arena: UnsafeMutablePointer<FrameArena>, _ context: Context
  ) -> ObjectRef? {
    guard let node = context.allocate(.object) else { return nil }
    let object = node.bindMemory(to: MemoryObject.self, capacity: 1)
    object.initialize(
      to:
        MemoryObject(kind: kind, identity: identity, lastPage: lastPage, arena: arena))
    return object
  }
}

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// One more handle. The caller has one, or a mapping.
  @inline(__always)
  func retain() { pointee.references.add(1, ordering: .relaxed) }

  /// One more handle, unless the last has gone: for a caller that found the object in a list that holds
  /// none, under the list's latch.
  func retainIfUsed() -> Bool {
    var seen = pointee.references.load(ordering: .relaxed)
    while seen != 0 {
      let (done, current) = pointee.references.weakCompareExchange(
        expected: seen, desired: seen + 1, ordering: .relaxed)
      if done { return true }
      seen = current
    }
    return false
  }

  /// Gives up a handle; the last one frees the object and its pages. Under no latch.
  func release(_ context: Context) {
    if let file = pointee.file { return release(file) }
    let old = pointee.references.subtract(1, ordering: .acquiringAndReleasing).oldValue
    precondition(old > 0, "MemoryObject.release: the object is free")
    guard old == 1 else { return }
    LockOrder.willWait(.objectMappings)
    precondition(pointee.mappings == nil, "MemoryObject: freed while it is mapped")
    if let files = pointee.files { files.remove(self) }
    releasePages(context)
    releasePolicies(context)
    retire(context)
  }

  /// The same, of a file: the last handle sets it aside, because its pages have to be written back.
  private func release(_ file: FileStateRef) {
    var seen = pointee.references.load(ordering: .relaxed)
    while seen > 1 {
      // Releases what this user did.
      let (done, now) = pointee.references.weakCompareExchange(
        expected: seen, desired: seen - 1, ordering: .acquiringAndReleasing)
      if done { return }
      seen = now
    }
    file.pointee.table._withUnsafeGuaranteedRef { $0.releaseLast(self) }
  }

  /// The node of an object that nobody knows any more.
  func retire(_ context: Context) {
    // Readers of frame metadata may still look at it. It has nothing to deinitialise but plain words.
    context.pin()
    context.retire(self, .object)
    context.unpin()
  }

  /// Calls `body` with every place where page `index` may be mapped: the reverse map. A place counts
  /// only if the page tables of that space map the page there; the body looks, under the page-table latch.
  ///
  /// - Parameter body: gets the space and the address. Runs under the object's latch: only page-table
  ///   latches and a *try* of a range are allowed inside.
  func forEachMapping(of index: UInt64, _ body: (_ space: UInt64, _ address: Address) -> Void) {
    pointee.latch.lock(.objectMappings)
    defer { pointee.latch.unlock(.objectMappings) }
    var next = pointee.mappings
    while let mapping = next {
      let page = index &+ mapping.pointee.deltaPages
      if page < Address.spaceEnd.pageNumber { body(mapping.pointee.space, page << 12) }
      next = mapping.pointee.next
    }
  }

  /// Mappings in the set. Takes the latch; for tests and reports.
  func mappingCount() -> Int {
    pointee.latch.lock(.objectMappings)
    defer { pointee.latch.unlock(.objectMappings) }
    var count = 0
    var next = pointee.mappings
    while let mapping = next {
      count += 1
      next = mapping.pointee.next
    }
    return count
  }
}
