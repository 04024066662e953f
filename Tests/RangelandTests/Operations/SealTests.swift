// SPDX-License-Identifier: Apache-2.0
//
// mseal: what a seal keeps from happening.

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct SealTests {
  @Test(arguments: LockPolicy.allCases)
  func `a seal keeps a mapping from being unmapped, replaced and changed`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 6)
    try space.seal(at: base + 2 * page, length: 2 * page)
    #expect(space.mappings().count == 3)
    let before = space.mappings()
    for (first, count) in [(0, 6), (2, 1), (3, 3)] as [(UInt64, UInt64)] {
      let (at, length) = (base + first * page, count * page)
      #expect(throws: Errno.notPermitted) { try space.unmap(at: at, length: length) }
      #expect(throws: Errno.notPermitted) {
        try space.map(length: length, at: .fixed(at), protection: .read)
      }
      #expect(space.mappings() == before)
    }
    // Linux cuts what reaches over the start before it finds the seal.
    #expect(throws: Errno.notPermitted) { try space.unmap(at: base + page, length: 2 * page) }
    #expect(
      layout(space) == ["0..<1 rw-p", "1..<2 rw-p", "2..<4 rw-p", "4..<6 rw-p"])
    #expect(space.usage.mappings == 4)
    // What comes before is changed.
    #expect(throws: Errno.notPermitted) {
      try space.protect(at: base, length: 6 * page, .read)
    }
    #expect(space.mapping(at: base)?.protection == .read)
    #expect(space.mapping(at: base + 2 * page)?.protection == [.read, .write])
    #expect(space.mapping(at: base + 4 * page)?.protection == [.read, .write])
    // Even to what it is.
    #expect(throws: Errno.notPermitted) {
      try space.protect(at: base + 2 * page, length: page, [.read, .write])
    }
    try space.store(UInt8(1), at: base + 2 * page)
    try space.seal(at: base + 2 * page, length: 2 * page)
    try space.unmap(at: base, length: 2 * page)
    try space.unmap(at: base + 4 * page, length: 2 * page)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `sealed pieces merge with each other only`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 3)
    try space.seal(at: base, length: page)
    try space.seal(at: base + 2 * page, length: page)
    #expect(space.mappings().count == 3)
    try space.seal(at: base, length: 3 * page)
    #expect(space.mappings().count == 1)
    try mapPages(space, 3, 1)
    #expect(space.mappings().count == 2)
  }

  @Test func `a range with a hole, no range and a bad one`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 1)
    try mapPages(space, 2, 1)
    let before = space.mappings()
    #expect(throws: Errno.noMemory) { try space.seal(at: base, length: 3 * page) }
    #expect(throws: Errno.noMemory) { try space.seal(at: base + page, length: page) }
    #expect(throws: Errno.invalidArgument) { try space.seal(at: base + 1, length: page) }
    #expect(throws: Errno.invalidArgument) { try space.seal(at: base, length: .max) }
    #expect(throws: Errno.invalidArgument) {
      try space.seal(at: base, length: 0 &- base - page + 4096)
    }
    try space.seal(at: base + page, length: 0)
    #expect(space.mappings() == before)
    #expect(space.systemCall(.mseal, LinuxArguments(base, page, 1)) == -22)
    #expect(space.systemCall(.mseal, LinuxArguments(base, page, 0)) == 0)
    #expect(space.systemCall(.munmap, LinuxArguments(base, page)) == -1)
  }
}
