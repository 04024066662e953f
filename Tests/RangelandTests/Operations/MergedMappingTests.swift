// SPDX-License-Identifier: Apache-2.0
//
// VMAs of one object that were mapped separately become one, whatever operation makes them equal.

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct MergedMappingTests {
  /// Two pages of one identity, the second with attributes of its own, moved away and back.
  private func apart(_ change: (AddressSpace, Address) throws -> Void) throws -> AddressSpace {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 2)
    for i in [0, 1] as [UInt64] { try space.store(UInt8(1), at: base + i * page) }
    try change(space, base + page)
    let far = base + (1 << 32)
    _ = try space.remap(at: base + page, length: page, to: page, .fixed(far))
    _ = try space.remap(at: far, length: page, to: page, .fixed(base + page))
    #expect(space.mappings().count == 2)
    return space
  }

  @Test func `attributes that become equal make one mapping`() throws {
    let policed = try apart {
      try $0.setPolicy(at: $1, length: page, MemoryPolicy(.bind, nodes: 1))
    }
    try policed.setPolicy(at: base + page, length: page, .default)
    #expect(policed.mappings().count == 1)

    let advised = try apart { try $0.advise(.sequential, at: $1, length: page) }
    try advised.advise(.normal, at: base + page, length: page)
    #expect(advised.mappings().count == 1)

    let sealed = try apart { space, _ in try space.seal(at: base, length: page) }
    try sealed.seal(at: base + page, length: page)
    #expect(sealed.mappings().count == 1)
  }

  @Test func `a guard stands where no page table was`() throws {
    let space = try makeSpace(.ranged)
    let at = base + (5 << 30)
    _ = try space.map(length: page, at: .fixed(at), protection: .read)
    try space.advise(.installGuard, at: at, length: page)
    #expect(throws: AccessFault.self) { try space.load(UInt8.self, at: at) }
  }
}
