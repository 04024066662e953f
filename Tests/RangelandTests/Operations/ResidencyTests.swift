// SPDX-License-Identifier: Apache-2.0
//
// mincore.

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct ResidencyTests {
  @Test(arguments: LockPolicy.allCases)
  func `private pages that were touched, and pages of shared memory that anybody touched`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try mapPages(space, 4, 4, sharing: .shared)
    try space.store(UInt8(1), at: base)
    _ = try space.load(UInt8.self, at: base + 2 * page)
    try space.store(UInt8(1), at: base + 5 * page)
    try space.store(UInt8(1), at: base + 7 * page)
    let expected = [true, false, true, false, false, true, false, true]
    #expect(try space.residency(at: base, length: 8 * page) == expected)
    // The object keeps what the page tables lose.
    try space.dontNeed(at: base, length: 8 * page)
    #expect(
      try space.residency(at: base, length: 8 * page)
        == [false, false, false, false, false, true, false, true])
    #expect(try space.residency(at: base + 5 * page, length: 1) == [true])
    #expect(try space.residency(at: base, length: 0) == [])
  }

  @Test func `bad ranges, and the answers before a hole`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 2)
    try mapPages(space, 3, 2)
    try space.store(UInt8(9), at: base)
    #expect(throws: Errno.invalidArgument) { try space.residency(at: base + 1, length: page) }
    #expect(throws: Errno.noMemory) { try space.residency(at: base, length: 3 * page) }
    #expect(throws: Errno.noMemory) { try space.residency(at: base, length: .max) }
    #expect(throws: Errno.noMemory) {
      try space.residency(at: Address.spaceEnd, length: page)
    }
    let vector = base + 4 * page
    func call(_ start: Address, _ length: UInt64, _ vector: Address) -> Int {
      space.systemCall(.mincore, LinuxArguments(start, length, vector))
    }
    #expect(call(base, 2 * page, vector) == 0)
    #expect(try space.load(UInt16.self, at: vector) == 1)
    #expect(call(base + 1, page, vector) == -22)
    #expect(call(base, page, base + 2 * page) == -14)
    #expect(call(base, page, .max) == -14)
    #expect(call(base, 3 * page, vector) == -12)
    #expect(call(base, .max, vector) == -12)
    #expect(call(base, 0, vector) == 0)
  }
}
