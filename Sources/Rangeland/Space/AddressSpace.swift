// SPDX-License-Identifier: Apache-2.0
//
// The state of an address space, and nothing else: every part, and which lock guards it.
//
// Operations are extensions, one verb a file, in Operations/. Each reads top to bottom: what range, what
// mode, look, change, tell. The lock order is in docs/design.md, section 4.

import RangeLocks
import Synchronization
import SystemPackage

/// A memory manager for one set of addresses: Linux's mappings, protections, demand paging and
/// copy-on-write, inside the process, under a lock that covers only the addresses an operation works on.
///
/// Every method may be called from any thread at any time. Addresses are numbers in the space's own
/// 47 bits; they are no pointers of the process: memory is read and written through the space.
///
/// ```swift
/// let space = try AddressSpace()
/// let address = try space.map(length: 1 << 20, protection: [.read, .write])
/// try space.store(UInt64(42), at: address)
/// try space.unmap(at: address, length: 1 << 20)
/// ```
///
/// All handles below are set once; what they lead to is guarded as their comments say, hence Sendable.
public final class AddressSpace: @unchecked Sendable {
  /// The physical memory that the space takes its pages from.
  public let memory: PhysicalMemory
  /// How addresses are chosen for mappings without one.
  public let placement: Placement

  /// The space lock. Everybody takes it through the wrappers of Locking/.
  let lock: SpaceLockRef
  /// VMA records. Changed under the space lock for writing over the range, and leaf latches; read
  /// without locks by pinned threads.
  let layout: LayoutRef
  /// Page tables. Entries are installed under the space lock for reading over the page, taken out under
  /// it for writing (`dontNeed`: for reading), each under its table's latch.
  let tables: PageTables
  /// What the reverse map works on. Immutable.
  let place: SpacePlaceRef
  /// The threads' views. Each is used by its thread; a shootdown writes one word of it.
  let accessors: AccessorTable
  /// Objects of files, by number: a fork has the same. A latch of their own.
  let files: FileObjectsRef
  /// Special mappings that were inserted. A latch of their own.
  let specials: SpecialMappings
  /// Memory policies of threads. Each is its thread's.
  let threadPolicies: ThreadPolicies
  /// Whether anything was ever sealed, so that others need not look for seals. Set under a hold of the sealed
  /// range, never cleared.
  let hasSeals = Atomic<Bool>(false)
  /// Whether a page of a mapping of an object was ever guarded, so that a fork has to look. Set under a hold of the page, never
  /// cleared.
  let hasObjectGuards = Atomic<Bool>(false)
  /// Sizes. Per-thread credit, no lock.
  let counters: SpaceCounters
  /// Where the heap is.
  let heap = Heap()
  /// The markers of a program, but for the heap's, which stand in `heap`. Changed under the space lock for writing
  /// over the whole space; readers get all or nothing.
  let notes = MarkerNotes()
  /// The owner's word. Changed under the space lock for writing over the whole space.
  let opaque = Atomic<UInt64>(0)
  /// Where the mapping stands that is a program's vdso, 0 = nowhere. Changed under a hold of the mapping.
  let vdso = Atomic<UInt64>(0)
  /// The limits, as they were set. What operations look at is beside it.
  let settings: Latched<Limits>
  /// Whether operations have to ask before they change anything. Written with `settings`, as the next five.
  let isLimited = Atomic<Bool>(false)
  /// Pages that one mapping may be promised under `Overcommit.heuristic`.
  let largestPromise = Atomic<UInt64>(.max)
  /// Bytes from the heap's start to the break.
  let heapLimit = Atomic<UInt64>(.max)
  /// Bytes of one stack.
  let stackLimit = Atomic<UInt64>(.max)
  /// Whether anything may be locked at all.
  let mayLock = Atomic<Bool>(true)
  /// Whether locks have no limit.
  let canLockBeyondLimit = Atomic<Bool>(false)
  /// Whether somebody makes room for the space's limit of resident memory, and the ends of that.
  let isMakingRoom = Atomic<Bool>(false)
  let roomTurns = EventCount()
  /// Where pages of files go next for that limit. Its who makes room.
  let nextFilePageToGo = Atomic<UInt64>(0)
  /// The locks that new mappings get, as flags (Linux `def_flags`, M10). Written under the space lock over the whole
  /// space for writing; read under a hold of the new mapping's range.
  let futureLock = Atomic<UInt64>(0)
  /// Number in the reverse map. Immutable.
  let identity: UInt64
  /// Where tests stop operations.
  let park = ParkPoint()
  /// Where tests stop a reader that has found its VMA and not yet its lock word (`.perVMA`).
  let parkBeforeWord = ParkPoint()

  // Copies of what `memory` owns, to spare hot paths a look into another object.
  let reclaimer: UnsafeMutablePointer<Reclaimer>
  let arena: UnsafeMutablePointer<FrameArena>
  /// Whether a file waits for its end.
  let unusedFiles: UnsafeMutablePointer<Atomic<Bool>>

  /// The lock that stands behind the wrappers.
  public var policy: LockPolicy { lock.pointee.policy }

  private static let nextIdentity = Atomic<UInt64>(1)

  /// Makes an empty space.
  ///
  /// - Parameters:
  ///   - policy: the lock of the space. Results do not depend on it.
  ///   - placement: how addresses are chosen for mappings without one.
  ///   - memory: where pages come from; several spaces may share one. `nil` = one of its own.
  ///   - limits: what the space may use; see `limits`, which changes them later.
  ///   - vmaCache: each thread remembers the mappings that it found last, for faults and lookups. It pays where a
  ///     thread stays in a mapping for some faults, and costs little elsewhere: see docs/measurements.md.
  ///   - statistics: counts waits for the lock: see `lockStatistics`. Every request then costs more.
  /// - Throws: `ENOMEM` when the kernel refuses memory for the space's tables.
  public convenience init(
    policy: LockPolicy = .ranged, placement: Placement = .linux, memory: PhysicalMemory? = nil,
    limits: Limits = Limits(), vmaCache: Bool = true, statistics: Bool = false
  ) throws(Errno) {
    try self.init(policy, placement, memory, limits, vmaCache, statistics, forkedFrom: nil)
  }

  /// An empty space that chooses addresses from `base` downwards (Linux `mmap_base`, which is random there).
  package convenience init(placedBelow base: Address?) throws(Errno) {
    var bounds = PlacementLimits()
    if let base { bounds.topDownBase = base }
    try self.init(.semaphore, .linux, nil, Limits(), true, false, bounds: bounds, forkedFrom: nil)
  }

  /// An empty space; one that is to be a copy of `parent` has its files, special mappings, notes, and bounds of placement.
  init(
    _ policy: LockPolicy, _ placement: Placement, _ memory: PhysicalMemory?, _ limits: Limits,
    _ vmaCache: Bool, _ statistics: Bool, bounds: PlacementLimits = PlacementLimits(),
    forkedFrom parent: AddressSpace?
  ) throws(Errno) {
    let memory = if let memory { memory } else { try PhysicalMemory() }
    let context = memory.reclaimer.context()
    let tables = PageTables.make(context)
    let accessors = tables.flatMap { AccessorTable.make($0, memory.arena) }
    let counters = SpaceCounters.make()
    let layout = LayoutTree.make(
      reclaimer: memory.reclaimer, makesCells: policy == .perVMA, usesCache: vmaCache,
      limits: parent?.layout.pointee.limits ?? bounds)
    guard let tables, let accessors, let counters, let layout,
      let threadPolicies = ThreadPolicies.make()
    else {
      if let layout { LayoutTree.destroy(layout) }
      counters?.destroy()
      accessors?.destroy()
      tables?.destroy(memory.arena, context)
      throw .noMemory
    }
    self.memory = memory
    self.threadPolicies = threadPolicies
    self.placement = placement
    self.tables = tables
    self.accessors = accessors
    self.counters = counters
    self.layout = layout
    place = SpacePlace.make(tables, accessors, layout, counters)
    if let parent {
      parent.files.retain()
      files = parent.files
      specials = SpecialMappings(copying: parent.specials)
    } else {
      files = FileObjects.make()
      specials = SpecialMappings()
    }
    identity = Self.nextIdentity.add(1, ordering: .relaxed).oldValue
    reclaimer = memory.reclaimer
    arena = memory.arena
    unusedFiles = memory.files.hasUnused
    lock = SpaceLockRef.allocate(capacity: 1)
    lock.initialize(to: SpaceLock(policy: policy, statistics: statistics))
    settings = Latched(limits)
    if limits.residentMemory != nil { counters.countResident() }
    if limits != Limits() { self.limits = limits }
  }

  deinit { exit() }
}
