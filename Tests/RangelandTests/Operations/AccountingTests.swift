// SPDX-License-Identifier: Apache-2.0

import Rangeland
import Testing

@Suite struct AccountingTests {
  @Test(arguments: LockPolicy.allCases)
  func `M3 sizes move by the pages of each kind`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    func change(_ body: () throws -> Void) rethrows -> [Int] {
      let before = space.usage
      try body()
      let after = space.usage
      return [
        after.virtualPages - before.virtualPages, after.dataPages - before.dataPages,
        after.executablePages - before.executablePages, after.stackPages - before.stackPages,
      ]
    }
    #expect(try change { try mapPages(space, 0, 16) } == [16, 16, 0, 0])
    #expect(try change { try mapPages(space, 20, 16, .read) } == [16, 0, 0, 0])
    #expect(try change { try mapPages(space, 40, 16, []) } == [16, 0, 0, 0])
    #expect(
      try change { try mapPages(space, 60, 16, [.read, .write], sharing: .shared) }
        == [16, 0, 0, 0])
    #expect(try change { try mapPages(space, 80, 16, [.read, .execute]) } == [16, 0, 16, 0])
    #expect(try change { try space.protect(at: base, length: 16 * page, []) } == [0, -16, 0, 0])
    #expect(
      try change { try space.protect(at: base, length: 4 * page, [.read, .write]) } == [0, 4, 0, 0])
    #expect(try change { try mapPages(space, 2, 16, [.read, .execute]) } == [2, -2, 16, 0])
    #expect(
      try change { try space.unmap(at: base, length: 100 * page) } == [-82, -2, -32, 0])
    #expect(space.usage.mappings == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `C10 resident counters are exact by kind of page`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    try mapPages(space, 8, 8, sharing: .shared)
    for i in 0..<16 as Range<UInt64> { try space.store(UInt8(1), at: base + i * page) }
    #expect(space.usage.residentAnonymousPages == 8)
    #expect(space.usage.residentSharedPages == 8)
    try space.dontNeed(at: base, length: 12 * page)
    #expect(space.usage.residentAnonymousPages == 0)
    #expect(space.usage.residentSharedPages == 4)
    #expect(space.usage.peakResidentPages == 16)
    try space.unmap(at: base, length: 16 * page)
    #expect(space.usage.residentSharedPages == 0)
  }
}
