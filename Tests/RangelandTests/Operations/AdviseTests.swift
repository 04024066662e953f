// SPDX-License-Identifier: Apache-2.0

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct AdviseTests {
  /// The flags of each mapping above `base` by their names of `VmFlags`, those that advice sets.
  private func advised(_ space: AddressSpace) -> [String] {
    let names: Set = ["sr", "rr", "dc", "wf", "dd", "hg", "nh", "mg"]
    return space.mappings().map { mapping in
      "\((mapping.range.start - base) / page)..<\((mapping.range.end - base) / page) "
        + mapping.flagNames.filter(names.contains).joined(separator: " ")
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `attributes split mappings, and merge them when they are equal again`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    for (set, end, name) in [
      (.random, .normal, "rr"), (.sequential, .normal, "sr"), (.dontFork, .doFork, "dc"),
      (.wipeOnFork, .keepOnFork, "wf"), (.dontDump, .doDump, "dd"),
      (.mergeable, .unmergeable, "mg"),
    ] as [(Advice, Advice, String)] {
      try space.advise(set, at: base + 2 * page, length: 4 * page)
      #expect(advised(space) == ["0..<2 ", "2..<6 \(name)", "6..<8 "])
      try space.advise(end, at: base, length: 8 * page)
      #expect(advised(space) == ["0..<8 "])
    }
    try space.advise(.hugePage, at: base, length: 8 * page)
    try space.advise(.noHugePage, at: base, length: page)
    #expect(advised(space) == ["0..<1 nh", "1..<8 hg"])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `attributes reach all that is mapped, and a hole is told last`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 3, 2)
    #expect(throws: Errno.noMemory) { try space.advise(.dontDump, at: base, length: 4 * page) }
    #expect(advised(space) == ["0..<2 dd", "3..<4 dd", "4..<5 "])
    // An error stops there.
    try mapPages(space, 2, 1, sharing: .shared)
    #expect(throws: Errno.invalidArgument) {
      try space.advise(.wipeOnFork, at: base, length: 5 * page)
    }
    #expect(advised(space) == ["0..<2 wf dd", "2..<3 ", "3..<4 dd", "4..<5 "])
    try space.advise(.mergeable, at: base, length: 5 * page)
    #expect(advised(space) == ["0..<2 wf dd mg", "2..<3 ", "3..<4 dd mg", "4..<5 mg"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `guards refuse accesses, cost no mapping, and stay until they are removed`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 6)
    for i in 0..<6 as Range<UInt64> { try space.store(UInt64(i + 1), at: base + i * page) }
    #expect(space.usage.residentAnonymousPages == 6)
    try space.advise(.installGuard, at: base + 2 * page, length: 2 * page)
    #expect(space.usage.residentAnonymousPages == 4)
    #expect(space.usage.mappings == 1)
    func isGuarded(_ index: UInt64) -> Bool {
      let at = base + index * page
      let reads = refusal { _ = try space.load(UInt8.self, at: at) } == .notMapped
      return reads && refusal { try space.store(UInt8(1), at: at) } == .notMapped
    }
    #expect(isGuarded(2) && isGuarded(3))
    // Over them again, without their pages, with other rights, with the lost right.
    try space.advise(.installGuard, at: base + 3 * page, length: page)
    try space.dontNeed(at: base, length: 6 * page)
    #expect(isGuarded(2) && isGuarded(3))
    try space.protect(at: base, length: 6 * page, .read)
    #expect(refusal { try space.store(UInt8(1), at: base + 2 * page) } == .notPermitted)
    try space.protect(at: base, length: 6 * page, [.read, .write])
    #expect(isGuarded(2) && isGuarded(3))
    #expect(try space.residency(at: base, length: 6 * page) == [Bool](repeating: false, count: 6))
    #expect(throws: Errno.badAddress) {
      try space.advise(.populateWrite, at: base, length: 6 * page)
    }
    #expect(space.usage.residentAnonymousPages == 2)
    try space.advise(.removeGuard, at: base + 2 * page, length: page)
    #expect(try space.load(UInt64.self, at: base + 2 * page) == 0)
    #expect(isGuarded(3))
    // The end of the mapping is theirs too.
    try mapPages(space, 3, 1)
    try space.store(UInt64(9), at: base + 3 * page)
    try space.unmap(at: base, length: 6 * page)
    #expect(space.usage.residentAnonymousPages == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `guards over shared memory keep its content and make no page`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2, sharing: .shared)
    try space.store(UInt64(7), at: base)
    try space.advise(.installGuard, at: base, length: 2 * page)
    #expect(refusal { _ = try space.load(UInt8.self, at: base) } == .notMapped)
    #expect(refusal { try space.store(UInt8(1), at: base + page) } == .notMapped)
    #expect(try space.residency(at: base, length: 2 * page) == [true, false])
    #expect(space.usage.residentSharedPages == 0)
    try space.advise(.removeGuard, at: base, length: 2 * page)
    #expect(try space.load(UInt64.self, at: base) == 7)
  }

  @Test(arguments: LockPolicy.allCases)
  func `what is released lazily reads as before until it goes, and is kept by a write`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 3)
    for i in 0..<3 as Range<UInt64> { try space.store(UInt64(5), at: base + i * page) }
    try space.advise(.free, at: base, length: 3 * page)
    #expect(space.usage.residentAnonymousPages == 3)
    #expect(try space.load(UInt64.self, at: base) == 5)
    try space.store(UInt64(6), at: base + page + 8)
    // The moment at which the pages would go.
    try space.advise(.pageOut, at: base, length: 3 * page)
    #expect(space.usage.residentAnonymousPages == 1)
    #expect(try space.load(UInt64.self, at: base) == 0)
    #expect(try space.load(UInt64.self, at: base + page) == 5)
    #expect(try space.load(UInt64.self, at: base + page + 8) == 6)
    #expect(try space.load(UInt64.self, at: base + 2 * page) == 0)
    try mapPages(space, 3, 1, sharing: .shared)
    #expect(throws: Errno.invalidArgument) { try space.advise(.free, at: base, length: 4 * page) }
  }

  @Test(arguments: LockPolicy.allCases)
  func `populating makes pages as reads and writes would, up to what refuses`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try space.advise(.populateRead, at: base, length: 4 * page)
    #expect(space.presentPages(in: AddressRange(start: base, end: base + 4 * page)).count == 4)
    #expect(space.usage.residentAnonymousPages == 0)
    try space.store(UInt64(3), at: base)
    try space.advise(.populateWrite, at: base, length: 4 * page)
    #expect(space.usage.residentAnonymousPages == 4)
    #expect(try space.load(UInt64.self, at: base) == 3)
    try mapPages(space, 4, 2)
    try mapPages(space, 6, 1, .read)
    #expect(throws: Errno.invalidArgument) {
      try space.advise(.populateWrite, at: base, length: 7 * page)
    }
    #expect(space.usage.residentAnonymousPages == 6)
    try mapPages(space, 6, 1, .write)
    #expect(throws: Errno.invalidArgument) {
      try space.advise(.populateRead, at: base + 6 * page, length: page)
    }
    try space.advise(.populateWrite, at: base + 6 * page, length: page)
    #expect(throws: Errno.noMemory) {
      try space.advise(.populateWrite, at: base + 6 * page, length: 2 * page)
    }
    // Many pages, a whole table and more.
    try mapPages(space, 512, 700)
    try space.advise(.populateWrite, at: base + 512 * page, length: 700 * page)
    #expect(space.usage.residentAnonymousPages == 7 + 700)
    try space.advise(.installGuard, at: base + 512 * page, length: 700 * page)
    #expect(space.usage.residentAnonymousPages == 7)
    #expect(refusal { try space.store(UInt8(1), at: base + 1211 * page) } == .notMapped)
  }

  @Test func `populating without memory says so`() throws {
    let space = try AddressSpace(memory: PhysicalMemory(frameLimit: 128))
    _ = try space.map(length: 1000 * page, at: .fixed(base), protection: [.read, .write])
    #expect(throws: Errno.noMemory) {
      try space.advise(.populateWrite, at: base, length: 1000 * page)
    }
  }

  /// What the kernel answers for a sealed mapping: rows of a program that ran on Linux 6.18.
  @Test func `a seal keeps advice from destroying what cannot be written`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 1)
    try mapPages(space, 2, 1, .read)
    try mapPages(space, 4, 1, .read, sharing: .shared)
    for i in [0, 2, 4] as [UInt64] { try space.seal(at: base + i * page, length: page) }
    for advice in Advice.allCases {
      func result(_ index: UInt64) -> Int32 {
        errno { try space.advise(advice, at: base + index * page, length: page) }?.rawValue ?? 0
      }
      let expected: [Int32] =
        switch advice {
        case .dontNeed, .dontNeedLocked, .dontFork: [0, 1, 0]
        case .installGuard: [0, 1, 0]
        case .free, .wipeOnFork: [0, 1, 22]
        case .remove: [22, 1, 0]
        case .collapse: [22, 22, 22]
        case .populateWrite: [0, 22, 22]
        default: [0, 0, 0]
        }
      #expect([result(0), result(2), result(4)] == expected, "\(advice)")
    }
  }
}
