// SPDX-License-Identifier: Apache-2.0
//
// What a forked space has, what the two share, and what they do not see of each other. D-2, M2-M6, M10.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct ForkTests {
  @Test(arguments: LockPolicy.allCases)
  func `private pages are copied by whoever writes first`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    for i in 0..<4 as Range<UInt64> { try space.store(100 + i, at: base + i * page) }
    // Read only: the page of zeros.
    #expect(try space.load(UInt64.self, at: base + 4 * page) == 0)
    let before = space.memory.framesInUse
    let child = try space.fork()
    #expect(child.policy == policy)
    #expect(space.memory.framesInUse == before, "no page is copied yet")
    for i in 0..<5 as Range<UInt64> {
      #expect(try child.load(UInt64.self, at: base + i * page) == (i < 4 ? 100 + i : 0))
    }
    try space.store(1 as UInt64, at: base)
    try child.store(2 as UInt64, at: base + page)
    try child.store(3 as UInt64, at: base + 4 * page)
    try child.store(4 as UInt64, at: base + 5 * page)
    #expect(space.memory.framesInUse == before + 4)
    let seen = try (0..<6).map { try space.load(UInt64.self, at: base + $0 * page) }
    #expect(seen == [1, 101, 102, 103, 0, 0])
    let copied = try (0..<6).map { try child.load(UInt64.self, at: base + $0 * page) }
    #expect(copied == [100, 2, 102, 103, 3, 4])
    #expect(space.usage.residentAnonymousPages == 4)
    #expect(child.usage.residentAnonymousPages == 6)
    space.checkInvariants()
    child.checkInvariants()
  }

  @Test func `a page that the other has let go is not copied`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 4)
    for i in 0..<4 as Range<UInt64> { try space.store(i, at: base + i * page) }
    let before = space.memory.framesInUse
    do {
      let child = try space.fork()
      try child.unmap(at: base, length: page)
      try child.store(9 as UInt64, at: base + page)
      #expect(space.memory.framesInUse == before + 1)
      for i in 0..<2 as Range<UInt64> { try space.store(7 as UInt64, at: base + i * page) }
      #expect(space.memory.framesInUse == before + 1, "both are the parent's alone")
    }
    try space.store(7 as UInt64, at: base + 2 * page)
    #expect(space.memory.framesInUse == before)
  }

  @Test(arguments: LockPolicy.allCases)
  func `shared memory stays shared, and what says so is left out or emptied`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2, sharing: .shared)
    try mapPages(space, 4, 2)
    try mapPages(space, 8, 2)
    try mapPages(space, 12, 2, .read)
    for i in [0, 4, 8] as [UInt64] { try space.store(UInt8(5), at: base + i * page) }
    try space.advise(.dontFork, at: base + 4 * page, length: 2 * page)
    try space.advise(.wipeOnFork, at: base + 8 * page, length: 2 * page)
    let child = try space.fork()
    #expect(layout(child) == ["0..<2 rw-s", "8..<10 rw-p", "12..<14 r--p"])
    #expect(child.usage.virtualPages == 6 && space.usage.virtualPages == 8)
    #expect(child.usage.mappings == 3)
    #expect(child.usage.residentAnonymousPages == 0)
    #expect(try child.load(UInt8.self, at: base + 8 * page) == 0)
    #expect(refusal { _ = try child.load(UInt8.self, at: base + 4 * page) } == .notMapped)
    try child.store(UInt8(6), at: base)
    #expect(try space.load(UInt8.self, at: base) == 6)
    // The advice is inherited.
    let grandchild = try child.fork()
    try child.store(UInt8(1), at: base + 8 * page)
    #expect(try grandchild.load(UInt8.self, at: base + 8 * page) == 0)
  }

  @Test func `mappings stay as they are, and those with pages of a parent never merge`() throws {
    let space = try makeSpace(.ranged)
    // One VMA, cut in three.
    try mapPages(space, 0, 4)
    for i in 0..<4 as Range<UInt64> { try space.store(UInt8(1), at: base + i * page) }
    try space.protect(at: base + 2 * page, length: page, .read)
    // The same without pages.
    try mapPages(space, 8, 4)
    try space.protect(at: base + 10 * page, length: page, .read)
    // Two that could merge and have not.
    try mapPages(space, 16, 2)
    try mapPages(space, 19, 2)
    try space.store(UInt8(1), at: base + 16 * page)
    try space.store(UInt8(1), at: base + 19 * page)
    try mapPages(space, 18, 1)
    let child = try space.fork()
    #expect(layout(child) == layout(space))
    #expect(layout(child).suffix(2) == ["16..<19 rw-p", "19..<21 rw-p"])
    for index in [2, 10] as [UInt64] {
      try child.protect(at: base + index * page, length: page, [.read, .write])
      try space.protect(at: base + index * page, length: page, [.read, .write])
    }
    try mapPages(child, 4, 1)
    // As a child of Linux 6.18 shows them.
    #expect(
      layout(child) == [
        "0..<2 rw-p", "2..<3 rw-p", "3..<4 rw-p", "4..<5 rw-p", "8..<12 rw-p", "16..<19 rw-p",
        "19..<21 rw-p",
      ])
    #expect(layout(space).prefix(2) == ["0..<4 rw-p", "8..<12 rw-p"])
    // Pieces of one VMA of the child do.
    try child.protect(at: base, length: page, .read)
    try child.protect(at: base, length: page, [.read, .write])
    #expect(layout(child).first == "0..<2 rw-p")
    // Also where they were moved to.
    _ = try child.remap(
      at: base, length: 2 * page, to: 2 * page, .fixed(base + 64 * page))
    try child.protect(at: base + 64 * page, length: page, .read)
    try child.protect(at: base + 64 * page, length: page, [.read, .write])
    #expect(layout(child).last == "64..<66 rw-p")
  }

  @Test func `a mapping of the child that grows joins one without pages`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 2)
    try space.store(UInt8(1), at: base)
    let child = try space.fork()
    try mapPages(child, 5, 2)
    _ = try child.remap(at: base, length: 2 * page, to: 5 * page)
    // As Linux 6.18 shows it, though it lets the two meet in no other way.
    #expect(layout(child) == ["0..<7 rw-p"])
  }

  @Test func `what belongs to a space is the child's own`() throws {
    let space = try makeSpace(.ranged)
    space.heapStart = base
    #expect(space.setBreak(to: base + 3 * page) == base + 3 * page)
    var limits = Limits()
    limits.mappingCount = 7
    space.limits = limits
    try mapPages(space, 16, 2)
    try space.setPolicy(at: base + 16 * page, length: page, MemoryPolicy(.bind, nodes: 1))
    try space.seal(at: base + 16 * page, length: page)
    let child = try space.fork()
    #expect(child.limits == limits && child.heapStart == base)
    #expect(child.programBreak == base + 3 * page)
    #expect(child.setBreak(to: base + 4 * page) == base + 4 * page)
    #expect(space.programBreak == base + 3 * page)
    #expect(try child.policy(at: base + 16 * page) == MemoryPolicy(.bind, nodes: 1))
    #expect(errno { try child.unmap(at: base + 16 * page, length: page) } == .notPermitted)
    child.limits = Limits()
    #expect(space.limits == limits)
    // M6, M10: neither the owner's word nor the locks of new mappings.
    space.limits = Limits()
    space.opaqueWord = 7
    try space.lockAllMemory([.current, .future])
    let second = try space.fork()
    #expect(second.opaqueWord == 0 && space.opaqueWord == 7)
    #expect(second.markers == space.markers)
    #expect(space.usage.lockedPages == 5 && second.usage.lockedPages == 0)
    try mapPages(second, 32, 1)
    #expect(second.usage.lockedPages == 0)
    #expect(child.maps().contains("[heap]"))
  }

  @Test func `a special mapping is told of the child's piece`() throws {
    let opened = Flag()
    let closed = Flag()
    let special = SpecialMapping(
      name: "[probe]", content: .bytes([42]), opened: { opened.raise() },
      closed: { closed.raise() })
    let space = try makeSpace(.ranged)
    _ = try space.insert(special, length: page, at: .fixed(base), protection: .read)
    do {
      let child = try space.fork()
      #expect(opened.isRaised && !closed.isRaised)
      #expect(try child.load(UInt8.self, at: base) == 42)
      #expect(child.maps().contains("[probe]"))
    }
    #expect(closed.isRaised)
  }

  @Test func `a pinned page stays with who pins it`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 2)
    try space.store(1 as UInt64, at: base)
    let context = space.reclaimer.context()
    let frame = space.tables.lookup(base, context).frame
    space.arena.pin(frame)
    let child = try space.fork()
    try space.store(2 as UInt64, at: base)
    #expect(space.tables.lookup(base, context).frame == frame)
    #expect(try child.load(UInt64.self, at: base) == 1)
    #expect(child.usage.residentAnonymousPages == 1)
    space.arena.unpin(frame, context)
  }

  @Test func `pages of a file are shared until they are written`() throws {
    let space = try makeSpace(.ranged)
    try space.substituteMapping(
      AddressRange(start: base, end: base + 2 * page), protection: [.read, .write],
      sharing: .private, file: 3)
    #expect(try space.load(UInt8.self, at: base) == 0)
    try space.store(UInt8(1), at: base + page)
    weak var parent: AddressSpace?
    let child: AddressSpace
    do {
      let other = try space.fork()
      parent = other
      child = try other.fork()
    }
    #expect(parent == nil)
    #expect(child.usage.residentFilePages == 1 && child.usage.residentAnonymousPages == 1)
    #expect(try child.load(UInt8.self, at: base + page) == 1)
  }

  @Test func `a thousand generations take no more memory than one`() throws {
    var space = try makeSpace(.ranged)
    let memory = space.memory
    try mapPages(space, 0, 16)
    for i in 0..<16 as Range<UInt64> { try space.store(i, at: base + i * page) }
    var objects = 0
    var mappings = 0
    for generation in 0..<1_000 as Range<UInt64> {
      space = try space.fork()
      try space.store(generation, at: base + (generation & 15) * page)
      #expect(memory.framesInUse == 16)
      if generation == 200 {
        objects = memory.reclaimer.pointee.pools[SlabClass.object.rawValue].nodesCreated
        mappings = memory.reclaimer.pointee.pools[SlabClass.objectMapping.rawValue].nodesCreated
      }
    }
    let pools = memory.reclaimer.pointee.pools
    #expect(pools[SlabClass.object.rawValue].nodesCreated == objects)
    #expect(pools[SlabClass.objectMapping.rawValue].nodesCreated == mappings)
    for i in 0..<16 as Range<UInt64> {
      #expect(try space.load(UInt64.self, at: base + i * page) == 984 + (i + 8) % 16)
    }
  }

  #if RANGELAND_CHECKS
    @Test(arguments: LockPolicy.allCases)
    func `without memory there is no child, and the parent is as before`(
      _ policy: LockPolicy
    ) throws {
      let space = try makeSpace(policy)
      try mapPages(space, 0, 3)
      try mapPages(space, 1 << 18, 2)
      try mapPages(space, 8, 1, sharing: .shared)
      try mapPages(space, 12, 600)
      for i in [0, 1, 8, 20, 600, 1 << 18] as [UInt64] {
        try space.store(i, at: base + i * page)
      }
      let context = space.reclaimer.context()
      let frame = space.tables.lookup(base, context).frame
      space.arena.pin(frame)
      let (usage, shape) = (space.usage, layout(space))
      let frames = space.memory.framesInUse
      var failures = 0
      while true {
        space.failAllocation(after: failures)
        let child = try? space.fork()
        if !space.disarmFailure() {
          #expect(child != nil)
          break
        }
        failures += 1
        // What is kept for later is not always needed.
        if child != nil { continue }
        #expect(space.memory.framesInUse == frames)
        #expect(layout(space) == shape && space.usage == usage)
        for i in [0, 1, 8, 20, 600, 1 << 18] as [UInt64] {
          #expect(try space.load(UInt64.self, at: base + i * page) == i)
          try space.store(i, at: base + i * page)
        }
        #expect(space.memory.framesInUse == frames)
        #expect(space.tables.lookup(base, context).frame == frame)
      }
      #expect(failures > 10)
      // The end of a space cannot fail.
      for k in 0..<8 {
        do {
          let child = try space.fork()
          #expect(child.usage.mappings == 4)
          space.failAllocation(after: k)
        }
        _ = space.disarmFailure()
        #expect(space.memory.framesInUse == frames)
      }
      space.arena.unpin(frame, context)
      space.checkInvariants()
    }
  #endif
}
