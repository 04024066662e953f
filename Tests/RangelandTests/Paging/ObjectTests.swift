// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

@Suite struct ObjectTests {
  @Test func `every mapped page is found through its object, in every space that maps it`() {
    let memory = try! PhysicalMemory(frameLimit: 2000)
    let context = memory.reclaimer.context()
    let arena = memory.arena
    var random = SeededRandom(for: "reverse map")
    let spaces = (0..<2).map { _ in PageTables.make(context)! }
    let objects = (0..<3).map { _ in MemoryObject.make(.sharedAnonymous, arena, context)! }
    // Each object stands at two places, in the same space or in both.
    var mappings: [MappingRef] = []
    for (i, object) in objects.enumerated() {
      for place in 0..<2 {
        let delta = (UInt64(i) * 2 + UInt64(place)) * 0x1000 &- UInt64(i)
        mappings.append(
          ObjectMapping.make(object, space: UInt64((i + place) % 2), deltaPages: delta, context)!)
      }
    }
    for _ in 0..<600 {
      let mapping = mappings[Int(random.below(UInt64(mappings.count)))]
      let index = 10 + random.below(100)
      let address = (index &+ mapping.pointee.deltaPages) << 12
      #expect(mapping.pageIndex(address) == index)
      let frame = mapping.pointee.object.frameCreating(index, context)!
      let tables = spaces[Int(mapping.pointee.space)]
      let leaf = tables.latchLeaf(address, creating: true, context)!
      let isNew = leaf.install(
        PageTableEntry(frame: frame, rights: .read, kind: .sharedMemory), at: address)
      leaf.unlockLeaf()
      if !isNew { arena.release(frame, context) }
    }
    var total = 0
    var referenced: [FrameNumber: Int] = [:]
    for (number, tables) in spaces.enumerated() {
      tables.forEachEntry(in: .wholeSpace, context) { address, entry in
        total += 1
        referenced[entry.frame, default: 0] += 1
        let row = arena.pointee.metadata + Int(entry.frame)
        var isFound = false
        row.pointee.object!.forEachMapping(of: row.pointee.index) { space, candidate in
          let there = spaces[Int(space)].lookup(candidate, context)
          if Int(space) == number, candidate == address {
            isFound = there.isPresent && there.frame == entry.frame
          } else {
            #expect(there.isEmpty || there.frame == entry.frame)
          }
        }
        #expect(isFound, "\(String(address, radix: 16)) in space \(number)")
      }
    }
    #expect(total > 100)
    for (frame, count) in referenced {
      #expect(Int(arena.references(frame)) == count + 1, "the tables and the page cache")
    }
    for tables in spaces { tables.destroy(arena, context) }
    for object in objects { #expect(object.mappingCount() == 2) }
    for mapping in mappings { mapping.release(context) }
    for object in objects {
      #expect(object.mappingCount() == 0)
      object.release(context)
    }
    #expect(memory.framesInUse == 0)
  }

  @Test func `an identity goes with its last mapping, a mapping with its last record`() {
    let memory = try! PhysicalMemory(frameLimit: 10)
    let context = memory.reclaimer.context()
    for _ in 0..<20_000 {
      let mapping = ObjectMapping.makeIdentity(space: 1, deltaPages: 0, memory.arena, context)!
      let object = mapping.pointee.object
      #expect(object.pointee.references.load(ordering: .relaxed) == 1)
      let second = ObjectMapping.make(object, space: 2, deltaPages: 5, context)!
      mapping.retain()
      mapping.release(context)
      #expect(object.mappingCount() == 2)
      mapping.release(context)
      #expect(object.mappingCount() == 1)
      second.release(context)
    }
    let pools = memory.reclaimer.pointee.pools
    #expect(pools[SlabClass.object.rawValue].nodesCreated < 2000)
    #expect(pools[SlabClass.objectMapping.rawValue].nodesCreated < 2000)
  }

  @Test func `threads that retain, release and walk mappings leave a consistent set`() {
    let memory = try! PhysicalMemory(frameLimit: 10)
    let object = MemoryObject.make(.file, identity: 7, memory.arena, memory.reclaimer.context())!
    nonisolated(unsafe) let shared = object
    withWatchdog(seconds: 120, "mapping churn") {
      runThreads(3) { me in
        let context = memory.reclaimer.context()
        for i in 0..<5_000 {
          let a = ObjectMapping.make(shared, space: UInt64(me), deltaPages: UInt64(i), context)!
          let b = ObjectMapping.make(shared, space: UInt64(me), deltaPages: 0, context)!
          var own = 0
          shared.forEachMapping(of: 1) { space, _ in own += space == UInt64(me) ? 1 : 0 }
          precondition(own == 2, "a mapping is missing")
          a.release(context)
          b.release(context)
        }
      }
    }
    #expect(object.mappingCount() == 0)
    object.release(memory.reclaimer.context())
  }

  @Test func `pages keep their index, however sparse, and all threads get the same page`() {
    let memory = try! PhysicalMemory(frameLimit: 1000)
    let context = memory.reclaimer.context()
    let object = MemoryObject.make(.sharedAnonymous, memory.arena, context)!
    nonisolated(unsafe) let shared = object
    let indices: [UInt64] =
      [0, 1, 63, 64, 65, 4095, 4096, 1 << 20, (1 << 36) + 5, 1 << 59, 1 << 60, UInt64.max]
      + (100..<200)
    for index in indices { #expect(object.page(index) == nil) }
    withWatchdog(seconds: 60, "page cache") {
      runThreads(4) { _ in
        let context = memory.reclaimer.context()
        for index in indices {
          let frame = shared.frameCreating(index, context)!
          let row = memory.arena.pointee.metadata + Int(frame)
          precondition(row.pointee.object == shared && row.pointee.index == index)
          memory.arena.release(frame, context)
        }
      }
    }
    var frames = Set<FrameNumber>()
    for index in indices {
      let frame = object.page(index)!
      frames.insert(frame)
      #expect(memory.arena.references(frame) == 2)
      memory.arena.release(frame, context)
    }
    #expect(object.page(2) == nil && object.page(1 << 30) == nil)
    #expect(frames.count == indices.count)
    #expect(object.pointee.pageCount.load(ordering: .relaxed) == UInt64(indices.count))
    #expect(memory.framesInUse == indices.count)
    object.release(context)
    #expect(memory.framesInUse == 0)
  }

  #if RANGELAND_CHECKS
    @Test func `an allocation that fails leaves everything as it was`() {
      let world = PagingWorld(frames: 100)
      let context = world.context
      let object = MemoryObject.make(.sharedAnonymous, world.arena, context)!
      var failures = 0
      for k in 0..<1000 {
        // Every step starts from an empty thread cache's worth of work in a fresh part of the space.
        let address = UInt64(k + 1) << 39
        world.memory.reclaimer.failAllocation(after: k)
        let done = allOf(world, object, address, UInt64(k) << 40)
        let hasFailed = world.memory.reclaimer.disarmFailure()
        #expect(done == !hasFailed)
        #expect(
          world.memory.framesInUse == 0 || object.pointee.pageCount.load(ordering: .relaxed) > 0)
        world.zap(.wholeSpace)
        #expect(world.tables.tableCount(context) == 1)
        #expect(object.mappingCount() == 0)
        if !hasFailed { break }
        failures += 1
      }
      #expect(failures >= 7, "tables, frames, objects and mappings were all refused once")
      object.release(context)
      #expect(world.memory.framesInUse == 0)
    }

    /// A fault's worth of allocations; undoes its part that is not in the page tables.
    private func allOf(
      _ world: PagingWorld, _ object: ObjectRef, _ address: Address, _ index: UInt64
    ) -> Bool {
      let context = world.context
      guard
        let identity = ObjectMapping.makeIdentity(
          space: 1, deltaPages: 0, world.arena, context)
      else { return false }
      defer { identity.release(context) }
      guard let mapping = ObjectMapping.make(object, space: 1, deltaPages: 0, context) else {
        return false
      }
      defer { mapping.release(context) }
      let before = object.pointee.pageCount.load(ordering: .relaxed)
      guard let cached = object.frameCreating(index, context) else {
        #expect(object.pointee.pageCount.load(ordering: .relaxed) == before)
        #expect(object.page(index) == nil)
        return false
      }
      world.arena.release(cached, context)
      guard let frame = world.arena.allocate(zeroed: true, context) else { return false }
      guard let leaf = world.tables.latchLeaf(address, creating: true, context) else {
        world.arena.release(frame, context)
        #expect(world.tables.lookup(address, context).isEmpty)
        return false
      }
      let isNew = leaf.install(
        PageTableEntry(frame: frame, rights: .read, kind: .anonymous), at: address)
      leaf.unlockLeaf()
      #expect(isNew)
      return true
    }
  #endif
}
