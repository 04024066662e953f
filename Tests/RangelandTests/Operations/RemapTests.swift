// SPDX-License-Identifier: Apache-2.0
//
// mremap: C17, C18, and its rows of the acceptance table's section 4.

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct RemapTests {
  private func at(_ index: UInt64) -> Address { base + index * page }

  /// Writes a number into the first word of each of `count` pages.
  private func fill(_ space: AddressSpace, _ index: UInt64, _ count: UInt64) throws {
    for i in index..<(index + count) { try space.store(i + 1, at: at(i)) }
  }

  private func words(
    _ space: AddressSpace, _ index: UInt64, _ count: UInt64
  ) throws -> [UInt64] {
    try (index..<(index + count)).map { try space.load(UInt64.self, at: at($0)) }
  }

  @Test(arguments: LockPolicy.allCases)
  func `C18 shrinking cuts the end off, over several mappings too`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try mapPages(space, 4, 4, .read)
    try mapPages(space, 9, 1)
    try fill(space, 0, 4)
    #expect(try space.remap(at: at(0), length: 4 * page, to: 4 * page, .inPlace) == at(0))
    #expect(try space.remap(at: at(1), length: 9 * page - 5, to: page + 1, .inPlace) == at(1))
    #expect(layout(space) == ["0..<3 rw-p"])
    #expect(try words(space, 0, 3) == [1, 2, 3])
    #expect(space.usage.residentAnonymousPages == 3)
    #expect(space.usage.virtualPages == 3)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `C18 growing in place takes free pages and merges with what follows`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try fill(space, 0, 2)
    #expect(try space.remap(at: at(1), length: page, to: 3 * page, .inPlace) == at(1))
    #expect(layout(space) == ["0..<4 rw-p"])
    #expect(try words(space, 0, 4) == [1, 2, 0, 0])
    try mapPages(space, 6, 2)
    try mapPages(space, 10, 1, .read)
    #expect(try space.remap(at: at(0), length: 4 * page, to: 6 * page) == at(0))
    #expect(layout(space) == ["0..<8 rw-p", "10..<11 r--p"])
    // Taken, and not the end of the mapping.
    for length in [8, 7] as [UInt64] {
      #expect(throws: Errno.noMemory) {
        try space.remap(at: at(0), length: length * page, to: 11 * page, .inPlace)
      }
    }
    #expect(throws: Errno.badAddress) {
      try space.remap(at: at(0), length: 9 * page, to: 10 * page)
    }
    #expect(layout(space) == ["0..<8 rw-p", "10..<11 r--p"])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `C17 a mapping that cannot grow where it is moves, and its old place is gone`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try mapPages(space, 4, 1, .read)
    try fill(space, 0, 4)
    let moved = try space.remap(at: at(1), length: 3 * page, to: 5 * page)
    #expect(layout(space) == ["0..<1 rw-p", "4..<5 r--p"])
    #expect(refusal { _ = try space.load(UInt8.self, at: at(1)) } == .notMapped)
    for i in 0..<5 as Range<UInt64> {
      #expect(try space.load(UInt64.self, at: moved + i * page) == (i < 3 ? i + 2 : 0))
    }
    #expect(space.usage.residentAnonymousPages == 4)
    #expect(space.usage.virtualPages == 7)
    // The page offset is kept: it goes back and merges again.
    #expect(
      try space.remap(at: moved, length: 3 * page, to: 3 * page, .fixed(at(1))) == at(1))
    #expect(layout(space) == ["0..<4 rw-p", "4..<5 r--p"])
    #expect(try words(space, 0, 4) == [1, 2, 3, 4])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `V5 offsets stay once a page was written, and begin anew before`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 12, 2)
    _ = try space.remap(at: at(0), length: 2 * page, to: 2 * page, .fixed(at(10)))
    #expect(layout(space) == ["10..<14 rw-p"])
    try fill(space, 10, 4)
    _ = try space.remap(at: at(10), length: 2 * page, to: 2 * page, .fixed(at(0)))
    try mapPages(space, 2, 1)
    #expect(layout(space) == ["0..<2 rw-p", "2..<3 rw-p", "12..<14 rw-p"])
    #expect(space.mapping(at: at(0))?.pageOffset == at(10).pageNumber)
    // A half of a mapping follows to where it continues the other half.
    _ = try space.remap(at: at(12), length: 2 * page, to: 2 * page, .fixed(at(2)))
    #expect(layout(space) == ["0..<4 rw-p"])
    #expect(try words(space, 0, 4) == [11, 12, 13, 14])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `C17 a fixed target is replaced, and sizes change on the way`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try mapPages(space, 8, 8, .read)
    try fill(space, 0, 4)
    #expect(
      try space.remap(at: at(0), length: 3 * page, to: 2 * page, .fixed(at(10))) == at(10))
    #expect(layout(space) == ["3..<4 rw-p", "8..<10 r--p", "10..<12 rw-p", "12..<16 r--p"])
    #expect(try words(space, 10, 2) == [1, 2])
    #expect(
      try space.remap(at: at(11), length: page, to: 3 * page, .fixed(at(20))) == at(20))
    #expect(try words(space, 20, 3) == [2, 0, 0])
    // Within one mapping.
    try mapPages(space, 30, 6)
    try fill(space, 30, 6)
    #expect(
      try space.remap(at: at(30), length: 2 * page, to: 2 * page, .fixed(at(33))) == at(33))
    #expect(layout(space).suffix(3) == ["32..<33 rw-p", "33..<35 rw-p", "35..<36 rw-p"])
    #expect(try words(space, 32, 4) == [33, 31, 32, 36])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `C17 several mappings move with the holes between them`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 2, 1, .read)
    try mapPages(space, 5, 3, sharing: .shared)
    try fill(space, 0, 2)
    try fill(space, 5, 3)
    // What stands where a hole comes to be stays.
    try mapPages(space, 104, 1, .execute)
    try mapPages(space, 105, 1, .execute)
    #expect(
      try space.remap(at: at(1), length: 9 * page, to: 9 * page, .fixed(at(101))) == at(101))
    #expect(
      layout(space) == [
        "0..<1 rw-p", "101..<102 rw-p", "102..<103 r--p", "104..<105 --xp", "105..<108 rw-s",
      ])
    #expect(try words(space, 105, 3) == [6, 7, 8])
    #expect(try words(space, 101, 1) == [2])
    // A hole at the beginning, and growth over the end of a mapping.
    #expect(throws: Errno.badAddress) {
      try space.remap(at: at(100), length: 2 * page, to: 2 * page, .fixed(at(200)))
    }
    #expect(throws: Errno.badAddress) {
      try space.remap(at: at(101), length: 2 * page, to: 4 * page, .fixed(at(200)))
    }
    // A sealed one stops it, and what was before has moved.
    try space.seal(at: at(102), length: page)
    #expect(throws: Errno.notPermitted) {
      try space.remap(at: at(101), length: 7 * page, to: 7 * page, .fixed(at(201)))
    }
    #expect(
      layout(space) == [
        "0..<1 rw-p", "102..<103 r--p", "104..<105 --xp", "105..<108 rw-s", "201..<202 rw-p",
      ])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `C17 the source may be kept, empty`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 3)
    try fill(space, 0, 3)
    #expect(
      try space.remap(
        at: at(0), length: 3 * page, to: 3 * page, .fixed(at(10)), keepingSource: true) == at(10))
    #expect(layout(space) == ["0..<3 rw-p", "10..<13 rw-p"])
    #expect(try words(space, 10, 3) == [1, 2, 3])
    #expect(try words(space, 0, 3) == [0, 0, 0])
    #expect(space.usage.virtualPages == 6)
    #expect(space.usage.residentAnonymousPages == 3)
    // It has no identity any more, and takes that of a neighbour.
    try mapPages(space, 3, 1)
    #expect(layout(space) == ["0..<4 rw-p", "10..<13 rw-p"])
    let shared = try mapPages(space, 20, 2, sharing: .shared)
    try fill(space, 20, 2)
    let second = try space.remap(
      at: shared, length: 2 * page, to: 2 * page, .hint(at(30)), keepingSource: true)
    #expect(second == at(30))
    #expect(try words(space, 20, 2) == [21, 22])
    #expect(try words(space, 30, 2) == [21, 22])
    for target in [.inPlace, .fixed(at(20))] as [RemapTarget] {
      #expect(throws: Errno.invalidArgument) {
        try space.remap(
          at: shared, length: 2 * page, to: 2 * page, target, keepingSource: true)
      }
    }
    #expect(throws: Errno.invalidArgument) {
      try space.remap(at: shared, length: 2 * page, to: page, keepingSource: true)
    }
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `C18 a length of 0 maps shared pages a second time`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4, sharing: .shared)
    try fill(space, 0, 4)
    let second = try space.remap(at: at(1), length: 0, to: 2 * page)
    #expect(try space.load(UInt64.self, at: second + page) == 3)
    try space.store(UInt64(77), at: second)
    #expect(try words(space, 1, 1) == [77])
    #expect(try space.remap(at: at(0), length: 0, to: page, .fixed(at(9))) == at(9))
    #expect(space.mapping(at: at(0))?.sharedObject == space.mapping(at: at(9))?.sharedObject)
    // The target comes first, and then there is no source.
    #expect(throws: Errno.badAddress) {
      try space.remap(at: at(0), length: 0, to: page, .fixed(at(0)))
    }
    #expect(layout(space) == ["1..<4 rw-s", "9..<10 rw-s"])
    try mapPages(space, 20, 1)
    #expect(throws: Errno.invalidArgument) { try space.remap(at: at(20), length: 0, to: page) }
    // The object keeps its size: what is behind it has no pages.
    _ = try space.remap(at: at(3), length: page, to: 2 * page, .inPlace)
    #expect(try words(space, 3, 1) == [4])
    #expect(refusal { _ = try space.load(UInt8.self, at: at(4)) } == .noPage)
    #expect(throws: Errno.noMemory) {
      try space.remap(at: at(1), length: 0, to: page, .inPlace)
    }
    space.checkInvariants()
  }

  struct Refusal: Sendable, CustomStringConvertible {
    var start: UInt64 = 0
    var length: UInt64 = 1
    var newLength: UInt64 = 1
    var flags: UInt64 = 0
    var target: UInt64 = 40 << 12
    var result: Int
    var description: String { "\(start) \(length) \(newLength) \(flags) \(target)" }
  }

  /// Offsets and lengths in bytes from `base`, where 2 pages are mapped.
  static let refusals = [
    Refusal(start: 1, result: -22),
    Refusal(newLength: 0, result: -22),
    Refusal(newLength: .max, result: -22),
    Refusal(newLength: 1 << 47, flags: 1, result: -22),
    Refusal(flags: 8, result: -22),
    Refusal(flags: 1 << 40, result: -22),
    Refusal(flags: 2, result: -22),
    Refusal(flags: 4, result: -22),
    Refusal(newLength: 8192, flags: 5, result: -22),
    Refusal(flags: 3, target: 41, result: -22),
    Refusal(flags: 3, target: 1 << 47, result: -22),
    Refusal(flags: 3, target: 0, result: -22),
    Refusal(length: 8192, newLength: 8192, flags: 3, target: 4096, result: -22),
    // Before it is known that nothing is mapped.
    Refusal(start: 10 << 12, newLength: 0, result: -22),
    Refusal(start: 10 << 12, result: -14),
    Refusal(start: 10 << 12, flags: 3, result: -14),
    Refusal(length: 3 << 12, newLength: 4 << 12, flags: 1, result: -14),
    Refusal(length: .max, newLength: 4096, flags: 1, result: -22),
    Refusal(length: 1 << 47, newLength: 4096, result: -22),
    Refusal(length: 4096, newLength: 8192, result: -12),
  ]

  @Test(arguments: refusals)
  func `C18 errors in the kernel's order`(_ row: Refusal) throws {
    for policy in LockPolicy.allCases {
      let space = try makeSpace(policy)
      try mapPages(space, 0, 2)
      let result = space.systemCall(
        .mremap,
        LinuxArguments(base + row.start, row.length, row.newLength, row.flags, base &+ row.target))
      #expect(result == row.result, "\(policy)")
      #expect(layout(space) == ["0..<2 rw-p"])
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `sealed mappings neither move nor change their size, nor are they replaced`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 4, 2)
    try space.seal(at: at(0), length: 2 * page)
    let calls: [(UInt64, UInt64, UInt64, RemapTarget)] = [
      (0, 2, 1, .inPlace), (0, 2, 2, .inPlace), (0, 2, 3, .anywhere), (0, 2, 2, .fixed(at(10))),
      (4, 2, 2, .fixed(at(1))),
    ]
    for (first, old, new, target) in calls {
      #expect(throws: Errno.notPermitted) {
        try space.remap(at: at(first), length: old * page, to: new * page, target)
      }
    }
    #expect(layout(space) == ["0..<2 rw-p", "4..<6 rw-p"])
    // The end that would be cut off is sealed.
    try mapPages(space, 20, 1)
    try mapPages(space, 21, 1)
    try space.seal(at: at(21), length: page)
    #expect(throws: Errno.notPermitted) {
      try space.remap(at: at(20), length: 2 * page, to: page, .inPlace)
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `M4 locked mappings stay locked where they go and are counted`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    setLocked(space, 0, 4)
    let moved = try space.remap(at: at(0), length: 4 * page, to: 8 * page, .fixed(at(10)))
    #expect(space.mapping(at: moved)?.flags.contains(.locked) == true)
    #expect(lockedPages(space) == 8)
    _ = try space.remap(at: moved, length: 8 * page, to: 6 * page, .inPlace)
    #expect(lockedPages(space) == 6)
    // What stays loses the lock, all of it, though two pages moved.
    _ = try space.remap(
      at: moved + page, length: 2 * page, to: 2 * page, .fixed(at(30)), keepingSource: true)
    #expect(space.mappings().map { $0.flags.contains(.locked) } == [false, true])
    #expect(lockedPages(space) == 2)
    space.checkInvariants()
  }

  /// Pages of locked mappings.
  private func lockedPages(_ space: AddressSpace) -> UInt64 {
    space.mappings().filter { $0.flags.contains(.locked) }.reduce(0) {
      $0 + $1.range.length / page
    }
  }

  /// What `mlock` does to the flags.
  private func setLocked(_ space: AddressSpace, _ index: UInt64, _ count: UInt64) {
    let before = LockMap.enter(.protect)
    defer { LockMap.leave(before) }
    let range = AddressRange(start: at(index), end: at(index + count))
    var hold = space.lock.write(range, .protect)
    let context = space.reclaimer.context()
    context.pin()
    defer { context.unpin() }
    space.lockCells(range, &hold)
    var change = LayoutChange()
    do {
      _ = try space.layout.pointee.modifyStep(
        from: range.start, to: range.end, hold, context, &change
      ) { .set($0.pointee.flags.union(.locked)) }
    } catch { Issue.record(error) }
    space.end(&change, hold, context)
  }

  @Test(arguments: LockPolicy.allCases)
  func `pages, tables and counters are those of the layout after many moves`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    // Over borders of page tables on both sides, at different offsets in them.
    let from = base + (2 << 20) - 5 * page
    let to = base + (1 << 30) - 300 * page
    _ = try space.map(length: 600 * page, at: .fixed(from), protection: [.read, .write])
    for i in stride(from: 0, to: 600, by: 7) as StrideTo<UInt64> {
      try space.store(i, at: from + i * page)
    }
    _ = try space.load(UInt8.self, at: from + page)
    let usage = space.usage
    for (a, b) in [(from, to), (to, from), (from, to)] {
      _ = try space.remap(at: a, length: 600 * page, to: 600 * page, .fixed(b))
      #expect(refusal { _ = try space.load(UInt8.self, at: a) } == .notMapped)
      for i in stride(from: 0, to: 600, by: 7) as StrideTo<UInt64> {
        #expect(try space.load(UInt64.self, at: b + i * page) == i)
      }
      #expect(space.usage == usage)
    }
    #expect(space.presentPages(in: AddressRange(start: from, end: from + 600 * page)).isEmpty)
    #expect(
      space.presentPages(in: AddressRange(start: to, end: to + 600 * page)).count == 600 / 7 + 2)
    try space.unmap(at: to, length: 600 * page)
    let context = space.reclaimer.context()
    // The root, and what the thread keeps.
    #expect(space.tables.tableCount(context) <= 4)
    #expect(space.usage.residentAnonymousPages == 0)
    space.checkInvariants()
  }
}
