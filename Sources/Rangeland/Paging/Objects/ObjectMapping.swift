// SPDX-License-Identifier: Apache-2.0
//
// One place where an object is mapped: the anchor of the reverse map.
//
// VMA records point here; an object lists its mappings. A page with index i of the object stands at
// virtual page i + deltaPages of the space, if a record that uses this mapping covers it. Linux's
// counterpart is `struct anon_vma_chain` (and the VMA itself in `i_mmap`).

import Synchronization

typealias MappingRef = UnsafeMutablePointer<ObjectMapping>

struct ObjectMapping: ~Copyable {
  /// The object. Immutable; the mapping holds one reference.
  let object: UnsafeMutablePointer<MemoryObject>
  /// The space that maps it: its number in the reverse map. Immutable.
  let space: UInt64
  /// What of the space the reverse map works on. It is there while the mapping is in the object's set: a space
  /// takes its mappings out before it ends. `nil` for identities, and in tests of objects alone. Immutable.
  let place: SpacePlaceRef?
  /// Who has opened the file that is mapped: mappings of different openers do not merge (Linux `vm_file`). Immutable.
  let opener: UInt64
  /// The errors of writing back that were reported for this mapping: see `ErrorSequence`.
  let errorCursor: Atomic<UInt64>
  /// See `deltaPages`. Atomic, because the mapping is in the object's set before it is placed.
  private let delta: Atomic<UInt64>
  /// Of an anonymous identity: which VMA of a forked child it belongs to, its pieces and places included (Linux: the
  /// `anon_vma` that the child got, where the object is their root); 0 = it does not come from a fork. Immutable.
  let branch: UInt64
  /// Published VMA records that use it. The one that drops it to zero unlinks it.
  let references: Atomic<UInt64>
  /// Links of the object's mapping set. Guarded by the object's latch.
  var next: MappingRef?
  var previous: MappingRef?

  /// Virtual page number minus object page index, wrapping. Immutable once a record uses the mapping: a
  /// placement decides it after the mapping was made.
  var deltaPages: UInt64 {
    // Relaxed: a walk of the reverse map that reads the value from before the placement gets a place
    // where no page of the mapping stands yet, and it looks there before it believes it. Publishing
    // the record releases the value to those who come through the record.
    get { delta.load(ordering: .relaxed) }
    nonmutating set { delta.store(newValue, ordering: .relaxed) }
  }

  init(
    object: ObjectRef, space: UInt64, place: SpacePlaceRef?, opener: UInt64, errorCursor: UInt64,
    deltaPages: UInt64, branch: UInt64, references: UInt64
  ) {
    self.object = object
    self.space = space
    (self.place, self.opener) = (place, opener)
    self.errorCursor = Atomic(errorCursor)
    self.branch = branch
    delta = Atomic(deltaPages)
    self.references = Atomic(references)
  }

  /// Adds a mapping of `object` to its set, with one reference, the caller's; `nil` without memory. The
  /// caller has a handle of the object; the mapping takes one of its own. Takes the object's latch.
  ///
  /// - Parameter errorCursor: of the mapping that this one continues; `nil` = it begins now.
  static func make(
    _ object: ObjectRef, space: UInt64, place: SpacePlaceRef? = nil, opener: UInt64 = 0,
    deltaPages: UInt64, branch: UInt64 = 0, errorCursor: UInt64? = nil, _ context: Context
  ) -> MappingRef? {
    guard let node = context.allocate(.objectMapping) else { return nil }
    let mapping = node.bindMemory(to: ObjectMapping.self, capacity: 1)
    mapping.initialize(
      to: ObjectMapping(
        object: object, space: space, place: place, opener: opener,
        errorCursor: errorCursor ?? object.pointee.file?.pointee.errors.sample() ?? 0,
        deltaPages: deltaPages, branch: branch, references: 1))
    object.retain()
    object.pointee.latch.lock(.objectMappings)
    object.pointee.file?.pointee.mappingsMade.add(1, ordering: .relaxed)
    LockMap.observe(.reverseMap, .objectMappings, .write)
    mapping.pointee.next = object.pointee.mappings
    object.pointee.mappings?.pointee.previous = mapping
    object.pointee.mappings = mapping
    object.pointee.latch.unlock(.objectMappings)
    return mapping
  }

  /// A branch that no other identity has.
  static func newBranch() -> UInt64 { lastBranch.add(1, ordering: .relaxed).newValue }
  private static let lastBranch = Atomic<UInt64>(0)

  /// A new anonymous identity (Linux `__anon_vma_prepare`) and its mapping in `space`, with one
  /// reference, the caller's; `nil` without memory, and nothing has changed.
  ///
  /// - Parameter deltaPages: virtual page number minus page offset of the VMA, wrapping.
  static func makeIdentity(
    space: UInt64, deltaPages: UInt64, _ arena: UnsafeMutablePointer<FrameArena>,
    _ context: Context
  ) -> MappingRef? {
    guard let object = MemoryObject.make(.anonymousIdentity, arena, context) else { return nil }
    let mapping = make(object, space: space, deltaPages: deltaPages, context)
    // The mapping keeps the object; without one the object goes.
    object.release(context)
    return mapping
  }
}

extension UnsafeMutablePointer where Pointee == ObjectMapping {
  /// One more record uses the mapping. The caller knows that it is alive: a record that it freezes,
  /// or re-reads under the leaf latch, uses it.
  @inline(__always)
  func retain() {
    pointee.references.add(1, ordering: .relaxed)
  }

  /// One user more, unless the last has gone: for a caller that found the mapping through a record that
  /// may be dropped meanwhile. The caller is pinned.
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

  /// One record less; the last one takes the mapping out of the object's set. Takes the object's latch:
  /// so never under a layout leaf or page-table latch (rule 6).
  @inline(__always)
  func release(_ context: Context) {
    // Releases what this record's user did; the last one acquires it all.
    let old = pointee.references.subtract(1, ordering: .acquiringAndReleasing).oldValue
    assert(old > 0, "ObjectMapping.release: the mapping is free")
    if old == 1 { unlink(context) }
  }

  @inline(never)
  private func unlink(_ context: Context) {
    let object = pointee.object
    object.pointee.latch.lock(.objectMappings)
    LockMap.observe(.reverseMap, .objectMappings, .write)
    if let previous = pointee.previous {
      previous.pointee.next = pointee.next
    } else {
      object.pointee.mappings = pointee.next
    }
    pointee.next?.pointee.previous = pointee.previous
    object.pointee.latch.unlock(.objectMappings)
    // A reader of an old record may still look at it.
    context.pin()
    context.retire(self, .objectMapping)
    context.unpin()
    object.release(context)
  }

  /// Whether it is the identity of a VMA that a fork has copied (Linux `vma_is_fork_child`).
  @inline(__always)
  var isForked: Bool { pointee.branch != 0 }

  /// The page index in the object that stands at `address`.
  @inline(__always)
  func pageIndex(_ address: Address) -> UInt64 { address.pageNumber &- pointee.deltaPages }
}
