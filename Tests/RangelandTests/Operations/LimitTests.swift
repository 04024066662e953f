// SPDX-License-Identifier: Apache-2.0
//
// C2, C3, C16 and max_map_count: what limits refuse, and what a refusal leaves.

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct LimitTests {
  @Test func `limits of any size may be set`() throws {
    let space = try makeSpace(.ranged)
    for count in [Int.max, Int.max - 1, -1, Int.min] {
      space.limits = Limits(
        addressSpace: .max, data: .max, lockedMemory: .max, stack: .max, mappingCount: count,
        overcommit: .strict(limit: .max))
      // As in Linux, one more than the limit.
      #expect(errno { try mapPages(space, 0, 1) } == nil)
      #expect(errno { try mapPages(space, 4, 1) } == (count > 0 ? nil : .noMemory))
      try space.unmap(at: base, length: 8 * page)
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `RLIMIT_AS counts every page, and credits those that a fixed mapping replaces`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    space.limits = Limits(addressSpace: 20 * page)
    try mapPages(space, 0, 16, [])
    #expect(errno { try mapPages(space, 20, 5) } == .noMemory)
    #expect(errno { _ = try space.map(length: 5 * page, protection: []) } == .noMemory)
    try mapPages(space, 20, 4, .read)
    #expect(errno { _ = try space.map(length: page, protection: .read) } == .noMemory)
    // In the middle of what is there: nothing more.
    try mapPages(space, 4, 4)
    #expect(layout(space) == ["0..<4 ---p", "4..<8 rw-p", "8..<16 ---p", "20..<24 r--p"])
    // Four pages replaced, four new: refused, and the mapping stays split where it would have been cut.
    #expect(errno { try mapPages(space, 14, 4) } == .noMemory)
    #expect(
      layout(space) == [
        "0..<4 ---p", "4..<8 rw-p", "8..<14 ---p", "14..<16 ---p", "20..<24 r--p",
      ])
    #expect(space.usage.mappings == 5 && space.usage.virtualPages == 20)
    // Below what is used not even a replacement is allowed; taking away is.
    space.limits.addressSpace = 10 * page
    #expect(errno { try mapPages(space, 4, 4, .read) } == .noMemory)
    try space.unmap(at: base, length: 16 * page)
    try mapPages(space, 0, 6)
    #expect(errno { try mapPages(space, 6, 1) } == .noMemory)
    #expect(
      errno {
        _ = try space.map(length: page, at: .fixedNoReplace(base), protection: .read)
      } == .fileExists)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `RLIMIT_DATA is for private writable memory only, however it became that`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    space.limits.data = 8 * page
    try mapPages(space, 0, 16, .read)
    try mapPages(space, 20, 16, [.read, .write], sharing: .shared)
    try mapPages(space, 40, 8)
    #expect(errno { try mapPages(space, 60, 1) } == .noMemory)
    #expect(errno { try space.protect(at: base, length: page, [.read, .write]) } == .noMemory)
    #expect(layout(space) == ["0..<16 r--p", "20..<36 rw-s", "40..<48 rw-p"])
    try space.protect(at: base + 40 * page, length: 4 * page, .read)
    try space.protect(at: base, length: 4 * page, [.read, .write])
    #expect(space.usage.dataPages == 8)
    // VMA by VMA: what came before the refusal stays changed.
    try space.unmap(at: base + 44 * page, length: 2 * page)
    try mapPages(space, 4, 2, [])
    #expect(errno { try space.protect(at: base + 4 * page, length: 12 * page, .all) } == .noMemory)
    #expect(
      layout(space).prefix(3) == ["0..<4 rw-p", "4..<6 rwxp", "6..<16 r--p"])
    // The kernel credits what is replaced whatever it was, so data exceeds its limit here.
    try mapPages(space, 8, 4)
    #expect(space.usage.dataPages == 12)
    #expect(errno { try mapPages(space, 60, 1) } == .noMemory)
    // Data that stays data is not asked.
    try space.protect(at: base, length: 4 * page, .all)
    // Beyond RLIMIT_AS the question is not asked either (`mprotect_fixup`).
    space.limits.addressSpace = page
    try space.protect(at: base + 12 * page, length: page, [.read, .write])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `the number of mappings is reached plus one by map, and not exceeded by splits`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 16)
    try mapPages(space, 20, 1)
    space.limits.mappingCount = 3
    // Two are there: a split makes three, and a second one is refused.
    try space.unmap(at: base + 4 * page, length: page)
    #expect(errno { try space.unmap(at: base + 8 * page, length: page) } == .noMemory)
    #expect(errno { try space.protect(at: base + 8 * page, length: page, .read) } == .noMemory)
    #expect(layout(space) == ["0..<4 rw-p", "5..<16 rw-p", "20..<21 rw-p"])
    // Cut at an edge, and a change that merges.
    try space.unmap(at: base + 15 * page, length: page)
    try mapPages(space, 15, 1, .read)
    #expect(space.usage.mappings == 4)
    // One beyond the limit: no mapping, though it would merge.
    #expect(errno { try mapPages(space, 21, 1) } == .noMemory)
    #expect(errno { _ = try space.map(length: page, protection: .read) } == .noMemory)
    #expect(
      errno { _ = try space.map(length: page, at: .fixed(1), protection: .read) } == .noMemory)
    try space.protect(at: base + 15 * page, length: page, [.read, .write])
    #expect(layout(space) == ["0..<4 rw-p", "5..<16 rw-p", "20..<21 rw-p"])
    // At the limit one more is made; a fixed mapping in the middle of another would make two.
    #expect(errno { try mapPages(space, 8, 1, .read) } == .noMemory)
    try mapPages(space, 21, 1)
    try mapPages(space, 30, 1)
    #expect(space.usage.mappings == 4)
    try space.unmap(at: base + 30 * page, length: page)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func
    `a mapping that shrinks may not be cut beyond the limit, one that grows where it is needs none`(
      _ policy: LockPolicy
    ) throws
  {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 16)
    space.limits.mappingCount = 1
    // The pages behind what is to go are a mapping of their own then.
    #expect(
      errno { _ = try space.remap(at: base + 2 * page, length: 4 * page, to: 2 * page) }
        == .noMemory)
    #expect(layout(space) == ["0..<16 rw-p"])
    _ = try space.remap(at: base, length: 16 * page, to: 12 * page)
    try mapPages(space, 20, 1)
    #expect(space.usage.mappings == 2)
    _ = try space.remap(at: base + 8 * page, length: 4 * page, to: 6 * page)
    #expect(layout(space) == ["0..<14 rw-p", "20..<21 rw-p"])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `of two splits the first stays when the second is one too many`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 16)
    space.limits.mappingCount = 2
    #expect(errno { try space.protect(at: base + 4 * page, length: page, .read) } == .noMemory)
    #expect(layout(space) == ["0..<4 rw-p", "4..<16 rw-p"])
    #expect(space.usage.mappings == 2)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `limits given at the creation hold, and can be lifted`(_ policy: LockPolicy) throws {
    let space = try AddressSpace(
      policy: policy, memory: PhysicalMemory(frameLimit: 64),
      limits: Limits(addressSpace: 2 * page))
    #expect(space.limits.addressSpace == 2 * page)
    #expect(errno { try mapPages(space, 0, 3) } == .noMemory)
    space.limits = Limits()
    try mapPages(space, 0, 3)
  }
}

@Suite struct LimitRaceTests {
  /// each thread maps and unmaps within its share, in its own addresses or wherever the space likes.
  @Test(arguments: LockPolicy.allCases, Placement.allCases)
  func `R-3 threads that fit the limits together are never refused, and never exceed them`(
    _ policy: LockPolicy, _ placement: Placement
  ) throws {
    let space = try makeSpace(policy, placement: placement)
    let threads = 4
    let share: UInt64 = 24
    // Of each thread two mappings at most, none of which merges with another's: rights alternate.
    space.limits = Limits(
      addressSpace: UInt64(threads) * share * page, data: UInt64(threads) * share * page,
      mappingCount: 2 * threads - 1)
    let random = SeededRandom(for: "limits")
    let refused = Atomic<Int>(0)
    withWatchdog(seconds: 120, "limits") {
      runThreads(threads) { me in
        var random = random.fork(me)
        let home = base + UInt64(me) << 32
        for _ in 0..<3_000 {
          let first = 1 + random.below(share - 1)
          let second = 1 + random.below(share - first)
          do {
            let a =
              random.chance(50)
              ? try space.map(length: first * page, protection: [.read, .write])
              : try space.map(length: first * page, at: .fixed(home), protection: [.read, .write])
            // Far from everything, so that it is a mapping of its own.
            let b = try space.map(
              length: second * page, at: .fixed(home + 1 << 30), protection: [.read, .write])
            if random.chance(30) {
              try space.protect(at: b, length: second * page, .read)
              try space.protect(at: b, length: second * page, [.read, .write])
            }
            try space.unmap(at: b, length: second * page)
            try space.unmap(at: a, length: first * page)
          } catch {
            refused.add(1, ordering: .relaxed)
            try? space.unmap(at: home, length: 1 << 31)
          }
        }
      }
    }
    #expect(refused.load(ordering: .relaxed) == 0)
    #expect(space.usage.virtualPages == 0 && space.usage.mappings == 0)
    #expect(space.usage.dataPages == 0)
    space.checkInvariants()
  }

  /// The other half: threads that want more than there is.
  @Test(arguments: LockPolicy.allCases)
  func `R-3 threads that want more than the limit get exactly the limit`(
    _ policy: LockPolicy
  ) throws {
    for what in 0..<3 {
      let space = try makeSpace(policy)
      let limit = 37
      switch what {
      case 0: space.limits.addressSpace = UInt64(limit) * page
      case 1: space.limits.data = UInt64(limit) * page
      default: space.limits.mappingCount = limit - 1
      }
      let mapped = Atomic<Int>(0)
      withWatchdog(seconds: 60, "over the limit") {
        runThreads(4) { me in
          for i in 0..<30 as Range<UInt64> {
            // Every other page, so that nothing merges.
            let at = base + UInt64(me) << 32 + 2 * i * page
            if (try? space.map(length: page, at: .fixed(at), protection: [.read, .write])) != nil {
              mapped.add(1, ordering: .relaxed)
            }
          }
        }
      }
      #expect(mapped.load(ordering: .relaxed) == limit)
      #expect(space.usage.virtualPages == limit && space.mappings().count == limit)
      space.checkInvariants()
    }
  }

  /// Threads that always want too much, and give back: what they have together never exceeds the limit.
  @Test(arguments: LockPolicy.allCases)
  func `R-3 what threads have never exceeds a limit`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let limit = 64
    space.limits = Limits(addressSpace: UInt64(limit) * page, data: 40 * page)
    let random = SeededRandom(for: "over the limits")
    let pages = Atomic<Int>(0)
    let data = Atomic<Int>(0)
    let exceeded = Atomic<Int>(0)
    let refused = Atomic<Int>(0)
    withWatchdog(seconds: 120, "over the limits") {
      runThreads(4) { me in
        var random = random.fork(me)
        for _ in 0..<3_000 {
          let length = 1 + Int(random.below(40))
          let isData = random.chance(50)
          guard
            let at = try? space.map(
              length: UInt64(length) * page, protection: isData ? [.read, .write] : [])
          else {
            refused.add(1, ordering: .relaxed)
            continue
          }
          // Counted after it was had and before it is given back: less than what there is.
          if pages.add(length, ordering: .sequentiallyConsistent).newValue > limit {
            exceeded.add(1, ordering: .relaxed)
          }
          if isData, data.add(length, ordering: .sequentiallyConsistent).newValue > 40 {
            exceeded.add(1, ordering: .relaxed)
          }
          if isData { data.subtract(length, ordering: .sequentiallyConsistent) }
          pages.subtract(length, ordering: .sequentiallyConsistent)
          try! space.unmap(at: at, length: UInt64(length) * page)
        }
      }
    }
    #expect(exceeded.load(ordering: .relaxed) == 0)
    #expect(refused.load(ordering: .relaxed) > 0)
    #expect(space.usage.virtualPages == 0 && space.usage.dataPages == 0)
    space.checkInvariants()
  }
}
