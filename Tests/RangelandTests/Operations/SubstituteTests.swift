// SPDX-License-Identifier: Apache-2.0

import Rangeland
import Testing

@Suite struct SubstituteTests {
  private func range(_ start: UInt64, _ end: UInt64) -> AddressRange {
    AddressRange(start: base + start * page, end: base + end * page)
  }

  @Test(arguments: LockPolicy.allCases)
  func `pieces of one file merge when their offsets continue`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try space.substituteMapping(
      range(0, 2), protection: .read, sharing: .private, file: 7, pageOffset: 10)
    try space.substituteMapping(
      range(2, 4), protection: .read, sharing: .private, file: 7, pageOffset: 12)
    try space.substituteMapping(
      range(4, 6), protection: .read, sharing: .private, file: 7, pageOffset: 12)
    try space.substituteMapping(
      range(6, 8), protection: .read, sharing: .private, file: 8, pageOffset: 14)
    #expect(layout(space) == ["0..<4 r--p", "4..<6 r--p", "6..<8 r--p"])
    let first = try #require(space.mapping(at: base + page))
    #expect(first.file == 7)
    #expect(first.pageOffset == 10)
    try space.protect(at: base + page, length: page, [.read, .write])
    #expect(space.mapping(at: base + page)?.pageOffset == 11)
    #expect(space.mapping(at: base + 2 * page)?.pageOffset == 12)
  }

  @Test(arguments: LockPolicy.allCases)
  func `pieces of one file merge however they came to touch`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    // Made apart, the later ones without a neighbour of that file.
    for start in [0, 4, 2] as [UInt64] {
      try space.substituteMapping(
        range(start, start + 2), protection: start == 2 ? [.read, .execute] : .read,
        sharing: .private, file: 7, pageOffset: 10 + start)
    }
    #expect(layout(space) == ["0..<2 r--p", "2..<4 r-xp", "4..<6 r--p"])
    // The mappings of the pieces that were joined to the first are gone from the file's set.
    try space.protect(at: base + 2 * page, length: 2 * page, .read)
    #expect(layout(space) == ["0..<6 r--p"])
    #expect(space.mapping(at: base + 5 * page)?.pageOffset == 10)
    try space.unmap(at: base, length: 6 * page)
  }

  @Test(arguments: LockPolicy.allCases)
  func `what was writable once is charged and merges with its like only`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try space.store(UInt8(1), at: base)
    try mapPages(space, 4, 4, .read)
    try space.protect(at: base, length: 4 * page, .read)
    #expect(layout(space) == ["0..<4 r--p", "4..<8 r--p"])
    // Memory that was never written to is not charged any more when it can no longer be written.
    try mapPages(space, 20, 4)
    try mapPages(space, 24, 4, .read)
    try space.protect(at: base + 20 * page, length: 4 * page, .read)
    #expect(layout(space) == ["0..<4 r--p", "4..<8 r--p", "20..<28 r--p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `a private file page is read as zeros, counted as the file's, and copied when written`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try space.substituteMapping(
      range(0, 2), protection: [.read, .write], sharing: .private, file: 7)
    #expect(try space.load(UInt64.self, at: base) == 0)
    #expect(space.usage.residentFilePages == 1)
    try space.store(UInt64(5), at: base)
    #expect(try space.load(UInt64.self, at: base) == 5)
    #expect(space.usage.residentFilePages == 0)
    #expect(space.usage.residentAnonymousPages == 1)
    try space.dontNeed(at: base, length: page)
    #expect(try space.load(UInt64.self, at: base) == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a stack is counted as one`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try space.substituteMapping(
      range(0, 16), protection: [.read, .write], sharing: .private, growsDown: true)
    #expect(space.usage.stackPages == 16)
    #expect(space.usage.dataPages == 0)
    try space.store(UInt8(1), at: base)
    try space.substituteUnmapping(range(0, 4))
    #expect(layout(space) == ["4..<16 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `a substitute divides crowded leaves as any mapping does`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    for i in 0..<64 as Range<UInt64> {
      try space.substituteMapping(
        range(2 * i, 2 * i + 1), protection: .read, sharing: .private)
    }
    for i in 0..<32 as Range<UInt64> {
      try space.protect(at: base + 4 * i * page, length: page, [.read, .write])
    }
    try mapPages(space, 200, 64)
    for i in 0..<32 as Range<UInt64> {
      try space.protect(at: base + (200 + 2 * i) * page, length: page, .read)
    }
    #expect(space.mappings().count == 128)
    for i in 0..<32 as Range<UInt64> {
      try space.unmap(at: base + (201 + 2 * i) * page, length: page)
    }
    #expect(space.mappings().count == 96)
  }
}
