// SPDX-License-Identifier: Apache-2.0

import Rangeland
import SystemPackage
import Testing

@Suite struct DontNeedTests {
  @Test(arguments: LockPolicy.allCases)
  func `private pages read as zero again, shared ones keep their content`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 2, 1, sharing: .shared)
    for i in 0..<3 as Range<UInt64> { try space.store(UInt64(9), at: base + i * page) }
    try space.dontNeed(at: base, length: 3 * page)
    #expect(try space.load(UInt64.self, at: base) == 0)
    #expect(try space.load(UInt64.self, at: base + page) == 0)
    #expect(try space.load(UInt64.self, at: base + 2 * page) == 9)
    #expect(layout(space) == ["0..<2 rw-p", "2..<3 rw-s"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `errors as madvise gives them`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 1)
    try mapPages(space, 2, 1)
    try space.store(UInt64(9), at: base)
    try space.store(UInt64(9), at: base + 2 * page)
    func dontNeed(_ at: Address, _ length: UInt64) -> Errno? {
      errno { try space.dontNeed(at: at, length: length) }
    }
    #expect(dontNeed(base + 1, page) == .invalidArgument)
    #expect(dontNeed(base, UInt64.max) == .invalidArgument)
    #expect(dontNeed(base, 0) == nil)
    #expect(dontNeed(base, 3 * page) == .noMemory)
    #expect(try space.load(UInt64.self, at: base) == 0)
    #expect(
      try space.load(UInt64.self, at: base + 2 * page) == 0, "what follows the hole was done too")
  }
}
