// SPDX-License-Identifier: Apache-2.0
//
// The Linux face: what has no Swift word is checked here; the rest is the operation's own.

import Testing

@testable import Rangeland

@Suite struct SystemCallTests {
  @Test func callsOfNoAddressSpaceAreUnknown() throws {
    let space = try AddressSpace()
    #expect(space.systemCall(0, LinuxArguments()) == -38)
    #expect(space.systemCall(-1, LinuxArguments()) == -38)
  }

  /// What the kernel answers to a mapping with these arguments.
  struct Refusal: Sendable {
    var length: UInt64
    var flags: UInt64
    var offset: UInt64 = 0
    var result: Int
  }

  static let refusals = [
    Refusal(length: 4096, flags: 0x22, offset: 1, result: -22),
    Refusal(length: 4096, flags: 0x02, result: -9),
    Refusal(length: 0, flags: 0x20, result: -22),
    Refusal(length: 1 << 63, flags: 0x20, result: -12),
    Refusal(length: 4096, flags: 0x20, result: -22),
    Refusal(length: 4096, flags: 0x23, result: -22),
    Refusal(length: 4096, flags: 0x30, result: -22),
  ]

  @Test(arguments: refusals)
  func mapRefuses(_ row: Refusal) throws {
    let space = try AddressSpace()
    let result = space.systemCall(
      .mmap, LinuxArguments(0, row.length, 3, row.flags, UInt64.max, row.offset))
    #expect(result == row.result)
    #expect(space.mappings().isEmpty)
  }

  @Test func aProgramOfRawCalls() throws {
    let space = try AddressSpace()
    let start = space.systemCall(.mmap, LinuxArguments(0, 0x3000, 3, 0x22, UInt64.max, 0))
    let address = Address(start)
    try space.store(UInt8(7), at: address)
    #expect(space.systemCall(.mprotect, LinuxArguments(address, 0x1000, 0x10)) == -22)
    #expect(space.systemCall(.mprotect, LinuxArguments(address, 0x1000, 1 | 8)) == 0)
    #expect(space.mappings().map(\.protection) == [.read, [.read, .write]])
    #expect(space.systemCall(.madvise, LinuxArguments(address, 0x1000, 4)) == 0)
    #expect(try space.load(UInt8.self, at: address) == 0)
    #expect(space.systemCall(.madvise, LinuxArguments(address, 0x1000, 99)) == -22)
    #expect(space.systemCall(.munmap, LinuxArguments(address, 0x3000)) == 0)
    #expect(space.mappings().isEmpty)
    // Without a type, over a mapping.
    #expect(space.systemCall(.mmap, LinuxArguments(0x1_0000, 0x1000, 3, 0x32)) == 0x1_0000)
    #expect(space.systemCall(.mmap, LinuxArguments(0x1_0000, 0x1000, 3, 0x10_0020)) == -17)
  }
}
