// SPDX-License-Identifier: Apache-2.0
//
// process_vm_readv and process_vm_writev with raw arguments: the order of errors is that of Linux 6.18, where each row
// was tried. What does not depend on where the lists of pieces lie is compared by the judge.

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct TransferCallTests {
  private static let lists = base + (1 << 30)

  private struct World {
    let space: AddressSpace
    let other: AddressSpace

    init() throws {
      space = try makeSpace(.ranged)
      other = try makeSpace(.ranged)
      try mapPages(space, 0, 4)
      try mapPages(other, 0, 4)
      try other.store(7 as UInt64, at: base)
      _ = try space.map(length: page, at: .fixed(lists), protection: [.read, .write])
    }

    /// Writes a list of pieces behind `offset` bytes.
    func list(_ offset: UInt64, _ pieces: [(UInt64, UInt64)]) throws -> UInt64 {
      for (i, piece) in pieces.enumerated() {
        try space.store(piece.0, at: lists + offset + UInt64(i) * 16)
        try space.store(piece.1, at: lists + offset + UInt64(i) * 16 + 8)
      }
      return lists + offset
    }

    func call(
      _ local: UInt64, _ localCount: UInt64, _ remote: UInt64, _ remoteCount: UInt64,
      flags: UInt64 = 0, process: UInt64 = 1, isWrite: Bool = false
    ) -> Int {
      space.systemCall(
        isWrite ? .processVMWritev : .processVMReadv,
        LinuxArguments(process, local, localCount, remote, remoteCount, flags)
      ) { $0 == 1 ? other : nil }
    }
  }

  private let fault = -14
  private let invalid = -22
  private let noProcess = -3

  @Test func `bytes are copied both ways`() throws {
    let world = try World()
    let own = try world.list(0, [(base + 16, 8)])
    let theirs = try world.list(64, [(base, 100)])
    #expect(world.call(own, 1, theirs, 1) == 8)
    #expect(try world.space.load(UInt64.self, at: base + 16) == 7)
    try world.space.store(8 as UInt64, at: base + 16)
    #expect(world.call(own, 1, theirs, 1, isWrite: true) == 8)
    #expect(try world.other.load(UInt64.self, at: base) == 8)
    #expect(world.space.systemCall(310, LinuxArguments(1, own, 1, theirs, 1)) == noProcess)
  }

  @Test func `numbers and lists are checked in Linux's order`() throws {
    let world = try World()
    let own = try world.list(0, [(base, 16)])
    let theirs = try world.list(64, [(base, 16)])
    let empty = try world.list(128, [(base, 0)])
    let hole = base + (1 << 31)
    #expect(world.call(8, .max, 8, .max, flags: 1, process: 9) == invalid)
    #expect(world.call(own, 1, theirs, 1, flags: 1 << 32) == invalid)
    #expect(world.call(own, 0, theirs, 1) == 0)
    #expect(world.call(8, 0, 8, 1) == 0)
    #expect(world.call(own, 1, hole, 0) == 0)
    #expect(world.call(own, 1, hole, 1) == fault)
    #expect(world.call(empty, 1, hole, 1) == 0)
    #expect(world.call(empty, 1, hole, 1025) == 0)
    #expect(world.call(own, 1, hole, 1025) == invalid)
    #expect(world.call(own, 1, theirs, 1 << 32 | 1) == invalid)
    #expect(world.call(own, 1 << 32 | 1, theirs, 1) == 16, "an unsigned int")
    #expect(world.call(own, 1025, theirs, 1) == invalid)
    #expect(world.call(hole, 1024, theirs, 1) == fault)
    #expect(world.call(Address.spaceEnd, 1, theirs, 1) == fault)
    #expect(world.call(1 << 63, 1, theirs, 1) == fault)
    #expect(world.call(own, 1, theirs, 1, process: 2) == noProcess)
    #expect(world.call(own, 1, theirs, 1, process: 1 << 32 | 1) == 16, "an int")
    #expect(world.call(empty, 1, theirs, 1, process: 2) == 0)
    #expect(world.call(own, 1, hole, 1, process: 2) == fault)
    #expect(world.call(own, 1, empty, 1, process: 2) == 0)
  }

  @Test func `pieces are checked in Linux's order`() throws {
    let world = try World()
    let (ok, end) = (base, Address.spaceEnd)
    /// The answer with this list on one side and 16 good bytes on the other.
    func local(_ pieces: (UInt64, UInt64)...) throws -> Int {
      world.call(
        try world.list(0, pieces), UInt64(pieces.count), try world.list(512, [(ok, 16)]), 1)
    }
    func remote(_ pieces: (UInt64, UInt64)...) throws -> Int {
      world.call(
        try world.list(0, [(ok + page, 16)]), 1, try world.list(512, pieces), UInt64(pieces.count))
    }
    #expect(try local((ok, .max)) == invalid)
    #expect(try local((ok, 16), (ok, 1 << 63)) == invalid)
    #expect(try local((ok, 1 << 63 - 1)) == 16)
    #expect(try local((ok, 1 << 47)) == 16, "one piece is cut off before it is looked at")
    #expect(try local((ok, 16), (ok, 1 << 47)) == fault)
    #expect(try local((ok, 0x7fff_f000), (8, 0x7fff_f000)) == 16)
    #expect(try local((end, 16)) == fault)
    #expect(try local((end, 0)) == 0)
    #expect(try local((end + 1, 0)) == fault)
    #expect(try local((ok, 16), (1 << 63, 0)) == fault)
    #expect(try local((ok, 16), (end - page, page)) == 16)
    #expect(try local((ok, 16), (end - page, page + 1)) == fault)
    #expect(try local((.max - 7, 16)) == fault)
    #expect(try local((0, 16)) == fault)
    #expect(try remote((ok, .max)) == invalid)
    #expect(try remote((ok, 16), (ok, .max)) == invalid)
    #expect(try remote((ok, 1 << 62)) == 16)
    #expect(try remote((end, 16)) == fault)
    #expect(try remote((.max, 16)) == fault)
    #expect(try remote((.max - 4095, 0)) == 0)
    #expect(try remote((.max - 4095, 0), (ok, 16)) == 16)
    #expect(try remote((ok, 10), (ok + 4 * page, 10), (ok, 10)) == 10)
    #expect(try remote((ok + 4 * page, 10), (ok, 10)) == fault)
    // A list that ends where nothing is mapped: its first piece is looked at first.
    let last = Self.lists + page - 16
    let good = try world.list(512, [(ok, 16)])
    _ = try world.list(page - 16, [(ok, .max)])
    #expect(world.call(last, 2, good, 1) == invalid)
    #expect(world.call(good, 1, last, 2) == invalid)
    _ = try world.list(page - 16, [(ok, 16)])
    #expect(world.call(last, 2, good, 1) == fault)
    #expect(world.call(good, 1, last, 2) == fault)
  }
}
