// SPDX-License-Identifier: Apache-2.0

import Rangeland
import SystemPackage
import Testing

@Suite struct ProtectTests {
  @Test(arguments: LockPolicy.allCases)
  func `errors as mprotect gives them`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    func protect(_ at: Address, _ length: UInt64) -> Errno? {
      errno { try space.protect(at: at, length: length, .read) }
    }
    #expect(protect(base + 1, page) == .invalidArgument)
    #expect(protect(base, 0) == nil)
    #expect(protect(base, UInt64.max & ~0xfff) == .noMemory)
    #expect(protect(base + 16 * page, page) == .noMemory)
    #expect(protect(Address.spaceEnd, page) == .noMemory)
    #expect(layout(space) == ["0..<4 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `what lies before a hole is changed, then the error comes`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 3, 2)
    #expect(
      errno { try space.protect(at: base + page, length: 3 * page, .read) } == .noMemory)
    #expect(layout(space) == ["0..<1 rw-p", "1..<2 r--p", "3..<5 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `splitting and merging back`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    try space.protect(at: base + 2 * page, length: 2 * page, .read)
    try space.protect(at: base + 4 * page, length: 2 * page, .read)
    #expect(layout(space) == ["0..<2 rw-p", "2..<6 r--p", "6..<8 rw-p"])
    try space.protect(at: base, length: 8 * page, [.read, .write])
    #expect(layout(space) == ["0..<8 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `rights follow at once, contents stay`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try space.store(UInt64(42), at: base)
    try space.protect(at: base, length: page, .read)
    #expect(refusal { try space.store(UInt64(1), at: base) } == .notPermitted)
    #expect(try space.load(UInt64.self, at: base) == 42)
    try space.protect(at: base, length: page, [])
    #expect(refusal { _ = try space.load(UInt64.self, at: base) } == .notPermitted)
    try space.protect(at: base, length: page, [.read, .write])
    #expect(try space.load(UInt64.self, at: base) == 42)
    try space.store(UInt64(43), at: base)
    #expect(try space.load(UInt64.self, at: base) == 43)
  }
}
