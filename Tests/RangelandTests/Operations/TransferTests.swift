// SPDX-License-Identifier: Apache-2.0
//
// Copies between spaces: process_vm_readv and process_vm_writev.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct TransferTests {
  private let source = base + (1 << 30)

  /// This space: 8 pages at `base`; the other: 8 pages at `source` whose words are their page's number + 1.
  private func makePair(_ policy: LockPolicy) throws -> (AddressSpace, AddressSpace) {
    let (_, space, other) = try makeSpaces(policy)
    try mapPages(space, 0, 8)
    _ = try other.map(length: 8 * page, at: .fixed(source), protection: [.read, .write])
    for i in 0..<8 as Range<UInt64> {
      for word in 0..<512 as Range<UInt64> {
        try other.store(i + 1, at: source + i * page + word * 8)
      }
    }
    return (space, other)
  }

  @Test(arguments: LockPolicy.allCases)
  func `bytes come from another space, and go there`(_ policy: LockPolicy) throws {
    let (space, other) = try makePair(policy)
    // From the middle of a page to the start of one: every page of either side is cut.
    let count = 3 * page
    #expect(
      try space.read(from: other, at: source + page / 2, into: base, length: count) == count)
    for (offset, value) in [(0, 1), (page / 2, 2), (3 * page / 2, 3), (3 * page - 8, 4)] {
      #expect(try space.load(UInt64.self, at: base + offset) == UInt64(value))
    }
    #expect(try space.load(UInt64.self, at: base + 3 * page) == 0, "no more")
    for i in 0..<4 as Range<UInt64> { try space.store(100 + i, at: base + i * page + 16) }
    #expect(
      try space.write(to: other, at: source + 4 * page, from: base, length: 4 * page) == 4 * page)
    for i in 0..<4 as Range<UInt64> {
      #expect(try other.load(UInt64.self, at: source + (4 + i) * page + 16) == 100 + i)
    }
    #expect(try space.read(from: other, at: source, into: base, length: 0) == 0)
    // From itself.
    #expect(try space.read(from: space, at: base, into: base + 5 * page, length: 32) == 32)
    #expect(try space.load(UInt64.self, at: base + 5 * page + 16) == 100)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a copy ends before the first page that refuses, on either side`(
    _ policy: LockPolicy
  ) throws {
    let (space, other) = try makePair(policy)
    func read(_ from: UInt64, _ to: UInt64, _ length: UInt64) -> UInt64? {
      try? space.read(from: other, at: source + from, into: base + to, length: length)
    }
    func write(_ to: UInt64, _ from: UInt64, _ length: UInt64) -> UInt64? {
      try? space.write(to: other, at: source + to, from: base + from, length: length)
    }
    try other.unmap(at: source + 2 * page, length: page)
    #expect(read(0, 0, 3 * page) == 2 * page)
    #expect(read(2 * page - 100, 0, 200) == 100)
    #expect(read(2 * page, 0, 8) == nil)
    #expect(
      errno { _ = try space.read(from: other, at: source + 2 * page, into: base, length: 8) }
        == .badAddress)
    #expect(write(page, 0, 2 * page) == page)
    try other.protect(at: source + 3 * page, length: page, .read)
    #expect(read(3 * page, 0, page) == page)
    #expect(write(3 * page, 0, page) == nil, "no right to write")
    try other.protect(at: source + 3 * page, length: page, [])
    #expect(read(3 * page, 0, page) == nil)
    try other.protect(at: source + 3 * page, length: page, .write)
    #expect(read(3 * page, 0, page) == nil, "a processor may read it, a copy may not")
    #expect(write(3 * page, 0, page) == page)
    // This side: what a processor may, a copy may.
    try space.protect(at: base + 3 * page, length: page, .write)
    #expect(write(0, 3 * page, 8) == 8)
    try space.protect(at: base + 3 * page, length: page, .read)
    #expect(read(0, 3 * page, 8) == nil)
    #expect(read(0, 3 * page - 10, 20) == 10)
    #expect(
      errno { _ = try space.read(from: other, at: .max - 7, into: base, length: 4096) }
        == .badAddress)
    #expect(
      errno { _ = try space.read(from: other, at: source, into: 1 << 63, length: 8) } == .badAddress
    )
    #expect(
      errno { _ = try space.read(from: other, at: source, into: .max - 3, length: 8) }
        == .badAddress)
  }

  @Test(arguments: LockPolicy.allCases)
  func `pieces are one stretch on each side, and the shorter side decides`(
    _ policy: LockPolicy
  ) throws {
    let (space, other) = try makePair(policy)
    let sources = [
      MemoryPiece(address: source, length: 8), MemoryPiece(address: 0, length: 0),
      MemoryPiece(address: source + page, length: 16),
      MemoryPiece(address: source + 2 * page, length: 100),
    ]
    let targets = [
      MemoryPiece(address: 1 << 63, length: 0), MemoryPiece(address: base, length: 20),
      MemoryPiece(address: base + page, length: 12),
    ]
    #expect(try space.read(from: other, sources, into: targets) == 32)
    #expect(try space.load(UInt64.self, at: base) == 1)
    #expect(try space.load(UInt64.self, at: base + 8) == 2)
    #expect(try space.load(UInt32.self, at: base + 16) == 2)
    #expect(try space.load(UInt32.self, at: base + page) == 0, "the upper half of the second 2")
    #expect(try space.load(UInt64.self, at: base + page + 4) == 3)
    #expect(try space.load(UInt64.self, at: base + page + 12) == 0)
    #expect(try space.write(to: other, sources, from: []) == 0)
    #expect(try space.read(from: other, [], into: targets) == 0)
    let behind = [MemoryPiece(address: source, length: 8), MemoryPiece(address: 0, length: 8)]
    #expect(try space.read(from: other, behind, into: targets) == 8)
    #expect(
      errno { _ = try space.read(from: other, behind.reversed(), into: targets) } == .badAddress)
  }

  @Test(arguments: LockPolicy.allCases)
  func `what a fork shares is copied when a space is written to from outside`(
    _ policy: LockPolicy
  ) throws {
    let (space, other) = try makePair(policy)
    let child = try other.fork()
    try space.store(77 as UInt64, at: base)
    #expect(try space.write(to: child, at: source, from: base, length: 8) == 8)
    #expect(try child.load(UInt64.self, at: source) == 77)
    #expect(try other.load(UInt64.self, at: source) == 1)
    // Between the members, of memory that nobody has touched.
    _ = try other.map(
      length: 4 * page, at: .fixed(source + (1 << 25)), protection: [.read, .write])
    #expect(try child.write(to: other, at: source + (1 << 25), from: source, length: 8) == 8)
    #expect(
      try child.read(from: other, at: source + (1 << 25), into: source + page, length: 16) == 16)
    #expect(try child.load(UInt64.self, at: source + page) == 77)
    #expect(
      try child.read(from: other, at: source + (1 << 25) + page, into: source, length: 8) == 8)
    #expect(try child.load(UInt64.self, at: source) == 0)
    #expect(
      try other.writtenPages(
        in: AddressRange(start: source + (1 << 25), end: source + (1 << 25) + 4 * page)) == [
          AddressRange(pageOf: source + (1 << 25))
        ])
  }

  @Test(arguments: LockPolicy.allCases)
  func `shared memory and files are written to from outside, and files get it back`(
    _ policy: LockPolicy
  ) throws {
    let (space, other) = try makePair(policy)
    let memory = other.memory
    let shared = try other.map(length: 4 * page, protection: [.read, .write], sharing: .shared)
    try space.store(5 as UInt64, at: base)
    #expect(try space.write(to: other, at: shared + 2 * page, from: base, length: 8) == 8)
    #expect(try other.load(UInt64.self, at: shared + 2 * page) == 5)
    let pager = TestPager()
    let object = try FileObject(pager: pager, name: "pager", size: 4 * page, memory: memory)
    let at = try other.map(
      object, length: 5 * page, protection: [.read, .write], sharing: .shared)
    #expect(try space.read(from: other, at: at, into: base, length: 5 * page) == 4 * page)
    #expect(try byte(space, base + 3 * page) == 4)
    #expect(object.dirtyBytes == 0)
    #expect(try space.write(to: other, at: at + page, from: base + 3 * page, length: 1) == 1)
    #expect(object.dirtyBytes == page)
    try other.synchronize(at: at, length: 4 * page)
    #expect(pager.state.withLock { $0.written } == [1: 4])
    #expect(object.dirtyBytes == 0)
    // An error of the file is one of the page.
    pager.state.withLock { $0.failing[2] = .ioError }
    try other.advise(.pageOut, at: at, length: 4 * page)
    #expect(try space.read(from: other, at: at, into: base, length: 4 * page) == 2 * page)
    // A private mapping of it is the other's own.
    let own = try other.map(object, length: page, protection: [.read, .write])
    try space.store(UInt8(9), at: base)
    #expect(try space.write(to: other, at: own, from: base, length: 1) == 1)
    #expect(try byte(other, own) == 9)
    #expect(try byte(other, at) == 1)
    #expect(object.dirtyBytes == 0)
  }

  @Test func `a stack does not grow for others`() throws {
    let (space, other) = try makePair(.ranged)
    let stack = source + (1 << 29)
    for one in [space, other] {
      _ = try one.map(
        length: 2 * page, at: .fixed(stack), protection: [.read, .write], options: .growsDown)
    }
    #expect(
      errno { _ = try space.read(from: other, at: stack - 8, into: base, length: 8) } == .badAddress
    )
    #expect(
      errno { _ = try space.write(to: other, at: stack - 8, from: base, length: 8) } == .badAddress)
    #expect(try space.read(from: other, at: source, into: stack - 8, length: 8) == 8)
    #expect(try space.load(UInt64.self, at: stack - 8) == 1)
  }

  @Test(arguments: LockPolicy.allCases)
  func `more pages than are pinned at a time, of spaces of different memory`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    let other = try makeSpace(policy)
    let pages: UInt64 = 2_100
    try mapPages(space, 0, pages)
    try mapPages(other, 0, pages)
    for i in 0..<pages { try other.store(i, at: base + i * page + 40) }
    #expect(
      try space.read(from: other, at: base + 33, into: base + 33, length: pages * page - 33)
        == pages * page - 33)
    for i in 0..<pages { #expect(try space.load(UInt64.self, at: base + i * page + 40) == i) }
    try other.unmap(at: base + 1_500 * page, length: page)
    #expect(try space.write(to: other, at: base, from: base, length: pages * page) == 1_500 * page)
  }

  @Test(arguments: LockPolicy.allCases)
  func `memory that runs out is a page that refuses`(_ policy: LockPolicy) throws {
    let memory = try PhysicalMemory(frameLimit: 16)
    let space = try AddressSpace(policy: policy, memory: memory)
    let other = try AddressSpace(policy: policy, memory: memory)
    try mapPages(space, 0, 1)
    try mapPages(other, 0, 64)
    let (free, frames) = (UInt64(16 - memory.framesInUse), memory.framesInUse)
    #expect(try space.write(to: other, at: base, from: base, length: page) == page)
    try space.unmap(at: base, length: page)
    try mapPages(space, 0, 64)
    #expect(
      errno { _ = try space.write(to: other, at: base, from: base, length: 64 * page) } == nil)
    #expect(UInt64(memory.framesInUse) <= 16)
    try other.unmap(at: base, length: 64 * page)
    try space.unmap(at: base, length: 64 * page)
    #expect(memory.framesInUse == frames && free > 0, "no pin is left")
  }

  // MARK: pins

  /// C4.
  @Test(arguments: LockPolicy.allCases)
  func `pinning stops at the first page that is not there, and pins outlive mappings`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    let frames = space.memory.framesInUse
    try mapPages(space, 0, 2)
    try mapPages(space, 3, 1)
    try space.store(11 as UInt64, at: base + page)
    try withPins(space, 4, .write, expecting: 2) { pins in
      try space.unmap(at: base, length: 4 * page)
      #expect(space.memory.framesInUse == frames + 2, "the pins keep them")
      #expect(space.arena.pointee.bytes(of: pins[1].frame).load(as: UInt64.self) == 11)
      return false
    }
    #expect(space.memory.framesInUse == frames)
  }

  /// C5: the flag is what decides.
  @Test(arguments: LockPolicy.allCases, [false, true])
  func `a page that was written through a pin reaches its file if the pin says so`(
    _ policy: LockPolicy, _ saysSo: Bool
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let file = try TestFile(pages: 4)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(
      object, length: 4 * page, at: .fixed(base), protection: [.read, .write], sharing: .shared)
    try withPins(space, 2, .write, expecting: 2) { pins in
      #expect(object.dirtyBytes == 2 * page, "whoever may write to it is expected to")
      // What was there before the write is written back meanwhile.
      try space.synchronize(at: at, length: 4 * page)
      #expect(object.dirtyBytes == 0)
      space.arena.pointee.bytes(of: pins[1].frame).storeBytes(of: 99, as: UInt8.self)
      return saysSo
    }
    #expect(object.dirtyBytes == (saysSo ? 2 * page : 0))
    try space.unmap(at: base, length: 4 * page)
    memory.writeBackAll()
    #expect(try file.byte(4096) == (saysSo ? 99 : 2))
    let again = try space.map(object, length: 4 * page, protection: .read, sharing: .shared)
    #expect(try byte(space, again + page) == 99, "in memory it is")
  }

  @Test func `a dirty pin of a page that is unmapped, or gone from its file`() throws {
    let (memory, space, _) = try makeSpaces(.ranged)
    let file = try TestFile(pages: 4)
    let frames = memory.framesInUse
    var object: FileObject? = try FileObject(descriptor: file.descriptor, memory: memory)
    _ = try space.map(
      object!, length: 4 * page, at: .fixed(base), protection: [.read, .write], sharing: .shared)
    try withPins(space, 4, .write, expecting: 4) { pins in
      try space.synchronize(at: base, length: 4 * page)
      try object!.truncate(to: 2 * page)
      try space.unmap(at: base, length: 4 * page)
      object = nil
      for i in 0..<4 {
        space.arena.pointee.bytes(of: pins[i].frame).storeBytes(of: 99, as: UInt8.self)
      }
      return true
    }
    #expect(try file.byte(4096) == 99, "the pin was the last to keep the file")
    #expect(try file.byte(8192) == 255, "no page behind the end comes back")
    #expect(memory.framesInUse == frames)
  }

  /// Pins pages from `base` on; `body` returns whether they were written to.
  private func withPins(
    _ space: AddressSpace, _ count: Int, _ access: AccessKind, expecting: Int,
    _ body: (UnsafeMutableBufferPointer<PinnedPage>) throws -> Bool
  ) throws {
    let pins = UnsafeMutableBufferPointer<PinnedPage>.allocate(capacity: count)
    defer { pins.deallocate() }
    let got = space.pin(base, access, into: pins).count
    #expect(got == expecting)
    let pinned = UnsafeMutableBufferPointer(rebasing: pins[..<got])
    let isDirty = try body(pinned)
    space.unpin(pinned, dirty: isDirty)
  }
}
