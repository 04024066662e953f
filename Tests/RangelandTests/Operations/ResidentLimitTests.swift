// SPDX-License-Identifier: Apache-2.0

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

/// `Limits.residentMemory`: what is present in a space.
@Suite struct ResidentLimitTests {
  private func limited(
    _ policy: LockPolicy, _ pages: UInt64, memory: PhysicalMemory? = nil
  ) throws -> AddressSpace {
    try AddressSpace(
      policy: policy, memory: memory ?? PhysicalMemory(frameLimit: 1 << 10),
      limits: Limits(residentMemory: pages * page))
  }

  private func resident(_ space: AddressSpace) -> Int {
    let usage = space.usage
    #expect(
      Int(space.counters.value(.resident)) == usage.residentAnonymousPages
        + usage.residentFilePages + usage.residentSharedPages)
    return Int(space.counters.value(.resident))
  }

  @Test(arguments: LockPolicy.allCases)
  func `private and shared memory is refused at the limit, and fits again`(
    _ policy: LockPolicy
  ) throws {
    let space = try limited(policy, 10)
    let own = try space.map(length: 8 * page, protection: [.read, .write])
    let shared = try space.map(length: 8 * page, protection: [.read, .write], sharing: .shared)
    for i in 0..<8 as Range<UInt64> { try space.store(i, at: own + i * page) }
    for i in 0..<2 as Range<UInt64> { try space.store(i, at: shared + i * page) }
    #expect(refusal { try space.store(UInt64(1), at: shared + 2 * page) } == .outOfMemory)
    #expect(errno { try space.advise(.populateWrite, at: shared, length: 8 * page) } == .noMemory)
    // The page of zeros is nobody's.
    let zeros = try space.map(length: page, protection: [.read, .write])
    #expect(try space.load(UInt64.self, at: zeros) == 0)
    #expect(refusal { try space.store(UInt64(1), at: zeros) } == .outOfMemory)
    #expect(resident(space) == 10)
    try space.dontNeed(at: own, length: page)
    try space.store(UInt64(1), at: zeros)
    #expect(refusal { try space.store(UInt64(1), at: own) } == .outOfMemory)
    space.limits.residentMemory = 11 * page
    try space.store(UInt64(1), at: own)
    space.limits.residentMemory = 3 * page
    #expect(refusal { try space.store(UInt64(1), at: shared + 2 * page) } == .outOfMemory)
    #expect(resident(space) == 11)
    space.limits.residentMemory = nil
    try space.store(UInt64(1), at: shared + 2 * page)
    #expect(resident(space) == 12)
    try space.unmap(at: shared, length: 8 * page)
    #expect(resident(space) == 9)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `copies are made at the limit, and a fork counts its own`(_ policy: LockPolicy) throws {
    let space = try limited(policy, 4)
    let at = try space.map(length: 4 * page, protection: [.read, .write])
    for i in 0..<4 as Range<UInt64> { try space.store(i, at: at + i * page) }
    let child = try space.fork()
    #expect(resident(child) == 4)
    for i in 0..<4 as Range<UInt64> {
      try child.store(10 + i, at: at + i * page)
      #expect(try space.load(UInt64.self, at: at + i * page) == i)
    }
    #expect(resident(child) == 4 && resident(space) == 4)
    let more = try child.map(length: page, protection: [.read, .write])
    #expect(refusal { try child.store(UInt64(1), at: more) } == .outOfMemory)
    try child.dontNeed(at: at, length: page)
    try child.store(UInt64(1), at: more)
    #expect(resident(child) == 4 && resident(space) == 4)
  }

  @Test(arguments: LockPolicy.allCases)
  func `pages of files make room, and nothing that was written is lost`(
    _ policy: LockPolicy
  ) throws {
    let (memory, other, _) = try makeSpaces(policy)
    let space = try limited(policy, 20, memory: memory)
    let file = try TestFile(pages: 200)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(
      object, length: 200 * page, protection: [.read, .write], sharing: .shared)
    let copy = try space.map(object, length: 200 * page, protection: [.read, .write])
    for i in 0..<200 as Range<UInt64> {
      try space.store(UInt8(truncatingIfNeeded: i &* 3), at: at + i * page + 1)
      #expect(try byte(space, copy + i * page) == UInt8(truncatingIfNeeded: 1 + i))
      #expect(resident(space) <= 20)
    }
    // Its pages are in the cache, and of the other space no concern.
    let there = try other.map(object, length: 200 * page, protection: .read, sharing: .shared)
    for i in 0..<200 as Range<UInt64> {
      #expect(try byte(other, there + i * page + 1) == UInt8(truncatingIfNeeded: i &* 3))
    }
    #expect(other.usage.residentFilePages == 200)
    // Private copies do not go.
    for i in 0..<19 as Range<UInt64> { try space.store(UInt8(7), at: copy + i * page) }
    for i in 100..<200 as Range<UInt64> {
      #expect(try byte(space, at + i * page + 1) == UInt8(truncatingIfNeeded: i &* 3))
    }
    #expect(space.usage.residentAnonymousPages == 19 && resident(space) == 20)
    #expect(other.usage.residentFilePages == 200)
    try space.synchronize(at: at, length: 200 * page)
    #expect(try file.byte(150 * 4096 + 1) == UInt8(truncatingIfNeeded: 150 * 3))
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `pages of locked mappings stay, and populating makes room as faults do`(
    _ policy: LockPolicy
  ) throws {
    let (memory, _, _) = try makeSpaces(policy)
    let space = try limited(policy, 20, memory: memory)
    let file = try TestFile(pages: 40)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(object, length: 40 * page, protection: .read, sharing: .shared)
    for i in 0..<40 as Range<UInt64> { _ = try byte(space, at + i * page) }
    try space.lockMemory(at: at, length: 16 * page)
    #expect(space.counters.value(.rssFile) >= 16)
    let own = try space.map(length: 4 * page, protection: [.read, .write])
    try space.advise(.populateWrite, at: own, length: 4 * page)
    #expect(resident(space) == 20)
    #expect(refusal { _ = try byte(space, at + 30 * page) } == .outOfMemory)
    #expect(errno { try space.lockMemory(at: at, length: 40 * page) } != nil)
    var present = 0
    space.tables.forEachEntry(
      in: AddressRange(start: at, end: at + 16 * page), space.reclaimer.context()
    ) { _, entry in present += entry.isPresent ? 1 : 0 }
    #expect(present == 16)
    space.checkInvariants()
  }

  @Test func `a space that was made without the limit traps`() async {
    await #expect(processExitsWith: .failure) {
      let space = try AddressSpace()
      space.limits.residentMemory = 4096
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `R-3 pages that fit are never refused while those of a file come and go`(
    _ policy: LockPolicy
  ) throws {
    let (memory, _, _) = try makeSpaces(policy)
    let space = try limited(policy, 64, memory: memory)
    let file = try TestFile(pages: 128)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let mapped = try space.map(object, length: 128 * page, protection: .read, sharing: .shared)
    let random = SeededRandom(for: "resident limit, \(policy)")
    let refused = Atomic<Int>(0)
    withWatchdog(seconds: 120, "resident limit") {
      runThreads(4) { me in
        var random = random.fork(me)
        // All threads' together are 48 pages: there is always room for some of the file.
        let own = try! space.map(length: 12 * page, protection: [.read, .write])
        for _ in 0..<300 {
          do {
            try space.store(UInt64(me), at: own + random.below(12) * page)
            _ = try byte(space, mapped + random.below(128) * page)
            if random.chance(20) { try space.dontNeed(at: own, length: 12 * page) }
          } catch {
            refused.add(1, ordering: .relaxed)
          }
        }
        try! space.unmap(at: own, length: 12 * page)
      }
    }
    #expect(refused.load(ordering: .relaxed) == 0)
    #expect(resident(space) <= 64)
    try space.unmap(at: mapped, length: 128 * page)
    #expect(resident(space) == 0)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `R-3 threads that want too much never have more than the limit`(
    _ policy: LockPolicy
  ) throws {
    let space = try limited(policy, 40)
    let random = SeededRandom(for: "over the resident limit, \(policy)")
    let pages = Atomic<Int>(0)
    let exceeded = Atomic<Int>(0)
    let refused = Atomic<Int>(0)
    withWatchdog(seconds: 120, "over the resident limit") {
      runThreads(4) { me in
        var random = random.fork(me)
        let own = try! space.map(length: 20 * page, protection: [.read, .write])
        for _ in 0..<200 {
          // Counted after they were had and before they are given back: less than what there is.
          var had = 0
          for i in 0..<1 + random.below(20) as Range<UInt64> {
            if (try? space.store(UInt64(me), at: own + i * page)) != nil { had += 1 }
          }
          if pages.add(had, ordering: .sequentiallyConsistent).newValue > 40 {
            exceeded.add(1, ordering: .relaxed)
          }
          if had < 20 { refused.add(1, ordering: .relaxed) }
          pages.subtract(had, ordering: .sequentiallyConsistent)
          try! space.dontNeed(at: own, length: 20 * page)
        }
      }
    }
    #expect(exceeded.load(ordering: .relaxed) == 0)
    #expect(refused.load(ordering: .relaxed) > 0)
    #expect(resident(space) == 0)
    space.checkInvariants()
  }
}
