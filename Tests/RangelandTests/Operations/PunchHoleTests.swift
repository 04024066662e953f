// SPDX-License-Identifier: Apache-2.0
//
// MADV_REMOVE and MADV_PAGEOUT of shared memory, and policies that all mappers see.

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct PunchHoleTests {
  /// A shared mapping of `pages` pages at `base`, and a second one of the same object behind it.
  private func twice(_ space: AddressSpace, _ pages: UInt64) throws -> Address {
    try mapPages(space, 0, pages, sharing: .shared)
    return try space.remap(
      at: base, length: 0, to: pages * page, .fixed(base + 2 * pages * page))
  }

  @Test(arguments: LockPolicy.allCases)
  func `a hole is a hole for all mappings of the object`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let second = try twice(space, 8)
    for i in 0..<8 as Range<UInt64> { try space.store(i + 1, at: base + i * page) }
    for i in 0..<8 as Range<UInt64> {
      #expect(try space.load(UInt64.self, at: second + i * page) == i + 1)
    }
    #expect(space.usage.residentSharedPages == 16)
    try space.advise(.remove, at: base + 2 * page, length: 3 * page - 1)
    #expect(space.usage.residentSharedPages == 10)
    #expect(try space.residency(at: second, length: 8 * page).filter { $0 }.count == 5)
    for i in 0..<8 as Range<UInt64> {
      let expected = (2..<5).contains(i) ? 0 : i + 1
      #expect(try space.load(UInt64.self, at: base + i * page) == expected)
      #expect(try space.load(UInt64.self, at: second + i * page) == expected)
    }
    // A new page, the same for both.
    try space.store(UInt64(9), at: second + 3 * page)
    #expect(try space.load(UInt64.self, at: base + 3 * page) == 9)
    // Without the right to write it works too; behind the object's end there is nothing to do.
    try space.protect(at: base, length: 8 * page, .read)
    try space.advise(.remove, at: base, length: page)
    #expect(try space.load(UInt64.self, at: second) == 0)
    // A guard stays, its page goes.
    try space.advise(.installGuard, at: second + 5 * page, length: page)
    try space.advise(.remove, at: second, length: 8 * page)
    #expect(refusal { _ = try space.load(UInt8.self, at: second + 5 * page) } == .notMapped)
    #expect(try space.load(UInt64.self, at: base + 5 * page) == 0)
    try space.unmap(at: base, length: 64 * page)
    #expect(space.usage.residentSharedPages == 0)
    space.checkInvariants()
  }

  @Test func `a page that is mapped at more places than a drop list holds`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 1, sharing: .shared)
    let count = UInt64(FrameCache.dropCapacity) + 10
    for i in 1...count {
      _ = try space.remap(at: base, length: 0, to: page, .fixed(base + 2 * i * page))
      try space.store(i, at: base + 2 * i * page)
    }
    #expect(space.usage.residentSharedPages == Int(count))
    try space.advise(.remove, at: base, length: page)
    #expect(space.usage.residentSharedPages == 0)
    #expect(try space.load(UInt64.self, at: base + 2 * count * page) == 0)
  }

  @Test func `PAGEOUT of shared memory keeps what the object has`() throws {
    let space = try makeSpace(.ranged)
    let second = try twice(space, 2)
    try space.store(UInt64(5), at: base)
    #expect(try space.load(UInt64.self, at: second) == 5)
    try space.advise(.pageOut, at: base, length: 2 * page)
    #expect(space.usage.residentSharedPages == 1)
    #expect(try space.residency(at: base, length: 2 * page) == [true, false])
    #expect(try space.load(UInt64.self, at: base) == 5)
  }

  @Test(arguments: LockPolicy.allCases)
  func `V6 the policy of shared memory is its object's`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let second = try twice(space, 4)
    let bind = try MemoryPolicy(.bind, nodes: 1)
    let interleave = try MemoryPolicy(.interleave, nodes: 1)
    try space.setPolicy(at: base + page, length: 2 * page, bind)
    #expect(try space.policy(at: second + page) == bind)
    #expect(try space.policy(at: second) == .default)
    #expect(space.mappings().count == 4)
    // A third one, made now, sees it, in parts.
    let third = try space.remap(
      at: second + page, length: 0, to: 2 * page, .fixed(base + 64 * page))
    #expect(try space.policy(at: third) == bind && space.policy(at: third + page) == bind)
    try space.setPolicy(at: third, length: page, interleave)
    #expect(try space.policy(at: base + page) == interleave)
    #expect(try space.policy(at: base + 2 * page) == bind)
    // The mapping has it already, so the object keeps what it has (Linux `mbind_range`).
    try space.setPolicy(at: base + page, length: page, bind)
    #expect(try space.policy(at: base + page) == interleave)
    // A neighbour that merges sets it for all of the merged mapping (`vma_replace_policy`).
    try space.setPolicy(at: base, length: page, bind)
    #expect(try space.policy(at: base + page) == bind && space.policy(at: third) == bind)
    try space.setPolicy(at: base, length: 4 * page, .default)
    #expect(try space.policy(at: third + page) == .default)
    space.checkInvariants()
  }
}
