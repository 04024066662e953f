// SPDX-License-Identifier: Apache-2.0

import Rangeland
import SystemPackage
import Testing

@Suite struct MapTests {
  @Test(arguments: LockPolicy.allCases)
  func `errors come as Linux orders them`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let end = Address.spaceEnd
    func map(_ length: UInt64, _ at: MapAddress = .anywhere) -> Errno? {
      errno { _ = try space.map(length: length, at: at, protection: .read) }
    }
    #expect(map(0) == .invalidArgument)
    #expect(map(UInt64.max) == .noMemory)
    #expect(map(UInt64.max - 4094) == .noMemory)
    #expect(map(end + page) == .noMemory)
    #expect(map(page, .fixed(base + 1)) == .invalidArgument)
    #expect(map(page, .fixed(end)) == .noMemory)
    #expect(map(page, .fixed(end + 1)) == .noMemory)
    #expect(map(page, .fixed(UInt64.max - 4095)) == .noMemory)
    #expect(map(page, .fixed(UInt64.max)) == .notPermitted, "an accident of the kernel's")
    #expect(map(2 * page, .fixed(end - page)) == .noMemory)
    #expect(map(page, .fixed(end - page)) == nil)
    #expect(map(page, .fixed(0)) == nil)
    #expect(map(page, .fixedNoReplace(0)) == .fileExists)
    #expect(map(2 * page, .fixedNoReplace(end - 2 * page)) == .fileExists)
    #expect(space.mappings().count == 2)
  }

  @Test(arguments: LockPolicy.allCases)
  func `without an address, mappings go top-down, each under the one before`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    let first = try space.map(length: 3 * page, protection: .read)
    let second = try space.map(length: page, protection: [.read, .write])
    let third = try space.map(length: 2 * page, protection: .read)
    #expect(second == first - page)
    #expect(third == second - 2 * page)
    // A freed hole is used first.
    try space.unmap(at: second, length: page)
    #expect(try space.map(length: page, protection: [.read, .execute]) == second)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a free hint is honoured, a busy one is not`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    #expect(
      try space.map(length: page, at: .hint(base + page - 1), protection: .read) == base)
    let other = try space.map(length: page, at: .hint(base), protection: .read)
    #expect(other != base)
    #expect(try space.map(length: page, at: .hint(1), protection: .read) > base)
    #expect(try space.map(length: page, at: .hint(Address.spaceEnd), protection: .read) != 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a fixed mapping replaces what is there and merges with its neighbours`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    try space.store(UInt8(7), at: base + 3 * page)
    try mapPages(space, 3, 2, .read)
    #expect(layout(space) == ["0..<3 rw-p", "3..<5 r--p", "5..<8 rw-p"])
    #expect(try space.load(UInt8.self, at: base + 3 * page) == 0)
    try mapPages(space, 3, 2)
    #expect(layout(space) == ["0..<8 rw-p"])
    #expect(errno { try mapNoReplace(space, 7, 2) } == .fileExists)
    #expect(errno { try mapNoReplace(space, 8, 2) } == nil)
    #expect(layout(space) == ["0..<10 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `shared anonymous neighbours never merge`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2, sharing: .shared)
    try mapPages(space, 2, 2, sharing: .shared)
    #expect(layout(space) == ["0..<2 rw-s", "2..<4 rw-s"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `pieces of one shared mapping merge again when their offsets continue`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4, sharing: .shared)
    try space.protect(at: base + page, length: page, .read)
    #expect(layout(space) == ["0..<1 rw-s", "1..<2 r--s", "2..<4 rw-s"])
    try space.protect(at: base + page, length: page, [.read, .write])
    #expect(layout(space) == ["0..<4 rw-s"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `a hole between two separately faulted mappings merges to the left only`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 4, 2)
    try space.store(UInt8(1), at: base)
    try space.store(UInt8(1), at: base + 4 * page)
    try mapPages(space, 2, 2)
    #expect(layout(space) == ["0..<4 rw-p", "4..<6 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `a hole between two unfaulted mappings merges with both`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 4, 2)
    try mapPages(space, 2, 2)
    #expect(layout(space) == ["0..<6 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `thread arenas place mappings and reuse them`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy, placement: .arenas)
    let first = try space.map(length: 4 * page, protection: [.read, .write])
    try space.store(UInt32(5), at: first)
    try space.unmap(at: first, length: 4 * page)
    let second = try space.map(length: 4 * page, protection: [.read, .write])
    #expect(second == first)
    #expect(try space.load(UInt32.self, at: second) == 0)
  }

  @Test func `a mapping that no gap holds is refused`() throws {
    let space = try makeSpace(.ranged)
    let half = Address.spaceEnd / 2 & ~0xfff
    _ = try space.map(length: page, at: .fixed(half), protection: .read)
    #expect(errno { _ = try space.map(length: half + page, protection: .read) } == .noMemory)
    #expect(errno { _ = try space.map(length: half - (1 << 30), protection: .read) } == nil)
  }

  private func mapNoReplace(_ space: AddressSpace, _ index: UInt64, _ pages: UInt64) throws {
    _ = try space.map(
      length: pages * page, at: .fixedNoReplace(base + index * page), protection: [.read, .write])
  }
}
