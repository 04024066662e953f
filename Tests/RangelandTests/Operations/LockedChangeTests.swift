// SPDX-License-Identifier: Apache-2.0
//
// What changes of locked memory do beside counting: tables that they make, mappings of objects that go.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct LockedChangeTests {
  @Test(arguments: LockPolicy.allCases)
  func `locked memory without rights gets its pages, and their tables, with the right to write`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    // In page tables of its own.
    try mapPages(space, 1 << 20, 2, [])
    #expect(
      errno { try space.lockMemory(at: base + (1 << 20) * page, length: 2 * page) } == .noMemory)
    #expect(space.usage.lockedPages == 2 && space.usage.residentAnonymousPages == 0)
    try space.protect(at: base + (1 << 20) * page, length: 2 * page, [.read, .write])
    #expect(space.usage.residentAnonymousPages == 2)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `two mappings of a file that a lock makes equal are one`(_ policy: LockPolicy) throws {
    let memory = try PhysicalMemory(frameLimit: 1 << 10)
    let space = try AddressSpace(policy: policy, memory: memory)
    let object = try FileObject(name: "locked", size: 4 * page, memory: memory)
    let at = try space.map(object, length: 2 * page, at: .fixed(base), protection: .read)
    try space.lockMemory(at: at, length: 2 * page)
    _ = try space.map(
      object, offset: 2 * page, length: 2 * page, at: .fixed(base + 2 * page), protection: .read)
    #expect(layout(space) == ["0..<2 r--p", "2..<4 r--p"])
    #expect(object.object.mappingCount() == 2)
    try space.lockMemory(at: base + 2 * page, length: 2 * page)
    #expect(layout(space) == ["0..<4 r--p"])
    #expect(object.object.mappingCount() == 1)
    #expect(space.usage.lockedPages == 4)
    space.checkInvariants()
  }
}
