// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct FileChangeTests {
  @Test(arguments: LockPolicy.allCases, TestFile.folders)
  func `truncation takes pages and copies from all spaces, growth adds zeros`(
    _ policy: LockPolicy, _ folder: String
  ) throws {
    let (memory, space, other) = try makeSpaces(policy)
    let file = try TestFile(pages: 8, in: folder)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let a = try space.map(
      object, length: 8 * page, protection: [.read, .write], sharing: .shared)
    let b = try other.map(
      object, offset: 2 * page, length: 6 * page, protection: [.read, .write])
    for i in 0..<8 as Range<UInt64> { try space.store(UInt8(50) + UInt8(i), at: a + i * page) }
    for i in 0..<6 as Range<UInt64> { try other.store(UInt8(70) + UInt8(i), at: b + i * page) }
    #expect(other.usage.residentAnonymousPages == 6)
    // Something that has nothing to do with it, where the file once was.
    try other.unmap(at: b + 5 * page, length: page)
    _ = try other.map(length: page, at: .fixed(b + 5 * page), protection: [.read, .write])
    try other.store(UInt8(9), at: b + 5 * page)
    try object.truncate(to: 3 * page + 100)
    #expect(object.size == 3 * page + 100)
    #expect(try byte(space, a + 3 * page) == 53)
    #expect(refusal { _ = try byte(space, a + 4 * page) } == .noPage)
    #expect(refusal { try space.store(UInt8(1), at: a + 7 * page) } == .noPage)
    #expect(try byte(other, b + page) == 71, "the last page's copy stays")
    #expect(refusal { _ = try byte(other, b + 2 * page) } == .noPage, "copies too")
    #expect(try byte(other, b + 5 * page) == 9)
    #expect(other.usage.residentAnonymousPages == 3)
    // Less if the background has written some.
    #expect(object.dirtyBytes <= 4 * page)
    try object.truncate(to: 6 * page)
    #expect(try byte(space, a + 3 * page + 99) == 4, "before the end, as it was")
    #expect(try byte(space, a + 3 * page + 100) == 0)
    #expect(try byte(space, a + 5 * page) == 0)
    #expect(try byte(other, b + 3 * page) == 0)
    try object.synchronize()
    #expect(try file.byte(3 * 4096) == 53)
    #expect(try file.byte(5 * 4096) == 0)
    #expect(try file.byte(6 * 4096) == 255, "no byte there")
  }

  @Test(arguments: LockPolicy.allCases, TestFile.folders)
  func `MADV_REMOVE makes a hole for all who map the file, and keeps copies`(
    _ policy: LockPolicy, _ folder: String
  ) throws {
    let (memory, space, other) = try makeSpaces(policy)
    let file = try TestFile(pages: 8, in: folder)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let a = try space.map(
      object, length: 8 * page, protection: [.read, .write], sharing: .shared)
    let b = try other.map(object, length: 8 * page, protection: [.read, .write])
    try other.store(UInt8(44), at: b + 2 * page)
    #expect(try byte(other, b + 3 * page) == 4)
    try space.store(UInt8(45), at: a + 3 * page)
    try space.advise(.remove, at: a + 2 * page, length: 3 * page)
    #expect(try byte(space, a + 3 * page) == 0)
    #expect(try byte(other, b + 3 * page) == 0)
    #expect(try byte(other, b + 2 * page) == 44, "a copy stays")
    #expect(try byte(space, a + 5 * page) == 6)
    #expect(object.dirtyBytes == 0)
    #expect(try file.byte(3 * 4096) == 0)
    #expect(errno { try other.advise(.remove, at: b, length: page) } == .permissionDenied)
    #expect(errno { try space.advise(.remove, at: a, length: 9 * page) } == .noMemory)
    #expect(try byte(space, a) == 0, "what is mapped is done")
    try object.punchHole(at: 7 * page + 10, length: 20)
    #expect(try byte(space, a + 7 * page + 9) == 0)
    #expect(try file.byte(7 * 4096 + 9) == 0)
  }

  /// Nothing is there to be taken, but whether a file may have such a range the file system says: ext4 refuses what lies
  /// behind 16 TiB. Found by `Scripts/verify-long`, seed 706.
  @Test(arguments: TestFile.folders)
  func `a hole behind the end is what the file system makes of it`(_ folder: String) throws {
    let (memory, space, _) = try makeSpaces(.ranged)
    let file = try TestFile(pages: 2, in: folder)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let a = try space.map(
      object, offset: 1 << 44, length: page, protection: [.read], sharing: .shared)
    let answer = -rl_punch_hole(file.descriptor.rawValue, 1 << 44, page)
    let refusal = errno { try space.advise(.remove, at: a, length: page) }
    #expect((refusal?.rawValue ?? 0) == answer)
    // Of memory no file system is asked.
    let other = try FileObject(name: "memory", size: 2 * page, memory: memory)
    let b = try space.map(
      other, offset: 1 << 44, length: page, protection: [.read], sharing: .shared)
    try space.advise(.remove, at: b, length: page)
  }

  @Test(arguments: LockPolicy.allCases)
  func `advice, mincore and populating know files`(_ policy: LockPolicy) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let pager = TestPager()
    let object = try FileObject(pager: pager, name: "pager", size: 8 * page, memory: memory)
    let at = try space.map(
      object, length: 10 * page, protection: [.read, .write], sharing: .shared)
    #expect(try space.residency(at: at, length: 10 * page) == Array(repeating: false, count: 10))
    _ = try byte(space, at + 2 * page)
    try space.advise(.willNeed, at: at + 4 * page, length: 6 * page)
    #expect(
      try space.residency(at: at, length: 10 * page)
        == [false, false, true, false, true, true, true, true, false, false])
    #expect(pager.state.withLock { $0.fills } == [2, 4, 5, 6, 7])
    #expect(errno { try space.advise(.populateRead, at: at, length: 10 * page) } == .badAddress)
    #expect(pager.state.withLock { $0.fills.count } == 8)
    #expect(errno { try space.advise(.free, at: at, length: page) } == .invalidArgument)
    try space.store(UInt8(99), at: at + page)
    try space.advise(.pageOut, at: at, length: 8 * page)
    #expect(
      try space.residency(at: at, length: 3 * page) == [false, true, false],
      "dirty pages stay")
    #expect(space.usage.residentFilePages == 1)
    try space.dontNeed(at: at, length: 10 * page)
    #expect(space.usage.residentFilePages == 0)
    #expect(try byte(space, at + page) == 99)
  }

  @Test(arguments: LockPolicy.allCases)
  func `remap_file_pages maps other pages of the object, mremap from 0 a second time`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let file = try TestFile(pages: 8)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(
      object, length: 8 * page, protection: [.read, .write], sharing: .shared)
    try space.remapPages(at: at + page, length: 2 * page, pageOffset: 5)
    #expect(try byte(space, at + page) == 6)
    #expect(try byte(space, at + 2 * page) == 7)
    #expect(space.mappings(in: AddressRange(start: at, end: at + 8 * page)).count == 3)
    try space.store(UInt8(60), at: at + page)
    #expect(try byte(space, at + 5 * page) == 60)
    func refused(_ start: Address, _ length: UInt64, _ offset: UInt64) -> Errno? {
      errno { try space.remapPages(at: start, length: length, pageOffset: offset) }
    }
    #expect(refused(at, 0, 1) == .invalidArgument)
    #expect(refused(at + 7 * page, 2 * page, 1) == .invalidArgument)
    #expect(refused(at, page, .max) == .invalidArgument)
    #expect(refused(at, page, 1 << 51) == .overflow)
    #expect(refused(at + 5, page, 0) == nil, "rounded down")
    #expect(refused(at, 8 * page, 0) == nil, "one object, though several mappings")
    #expect(space.mappings(in: AddressRange(start: at, end: at + 8 * page)).count == 1)
    let second = try space.remap(at: at + 2 * page, length: 0, to: 2 * page, .anywhere)
    try space.store(UInt8(61), at: second)
    #expect(try byte(space, at + 2 * page) == 61)
    let copy = try space.map(object, length: page, protection: .read)
    #expect(refused(copy, page, 1) == .invalidArgument)
  }

  @Test(arguments: LockPolicy.allCases)
  func `remap_file_pages cuts a mapping into as many as it has pages`(_ policy: LockPolicy) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let object = try FileObject(name: "many", size: 400 * page, memory: memory)
    let at = try space.map(
      object, length: 400 * page, protection: [.read, .write], sharing: .shared)
    for i in stride(from: 0, to: 400, by: 2) as StrideTo<UInt64> {
      try space.remapPages(at: at + i * page, length: page, pageOffset: 399 - i)
    }
    #expect(space.mappings(in: AddressRange(start: at, end: at + 400 * page)).count == 400)
    try space.store(UInt8(7), at: at)
    #expect(try byte(space, at + 399 * page) == 7)
  }

  @Test(arguments: LockPolicy.allCases)
  func `clean pages of files make room when frames are short`(_ policy: LockPolicy) throws {
    let memory = try PhysicalMemory(frameLimit: 64)
    let space = try AddressSpace(policy: policy, memory: memory)
    let file = try TestFile(pages: 200)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(
      object, length: 200 * page, protection: [.read, .write], sharing: .shared)
    for i in 0..<200 as Range<UInt64> {
      #expect(try byte(space, at + i * page) == UInt8(truncatingIfNeeded: 1 + i))
      try space.store(UInt8(truncatingIfNeeded: i &* 3), at: at + i * page + 1)
    }
    let anonymous = try space.map(length: 20 * page, protection: [.read, .write])
    for i in 0..<20 as Range<UInt64> { try space.store(UInt8(1), at: anonymous + i * page) }
    for i in 0..<200 as Range<UInt64> {
      #expect(try byte(space, at + i * page + 1) == UInt8(truncatingIfNeeded: i &* 3))
    }
    #expect(space.usage.residentFilePages <= 44)
  }

  @Test(arguments: LockPolicy.allCases)
  func `pages made ahead of accesses get the room too`(_ policy: LockPolicy) throws {
    let memory = try PhysicalMemory(frameLimit: 64)
    let space = try AddressSpace(policy: policy, memory: memory)
    let file = try TestFile(pages: 64)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(object, length: 64 * page, protection: .read, sharing: .shared)
    func read() throws { for i in 0..<64 as Range<UInt64> { _ = try byte(space, at + i * page) } }
    let own = try space.map(length: 40 * page, protection: [.read, .write])
    try read()
    try space.advise(.populateWrite, at: own, length: 20 * page)
    try read()
    try space.lockMemory(at: own + 20 * page, length: 20 * page)
    #expect(space.usage.residentAnonymousPages == 40)
    #expect(
      errno { try space.lockMemory(at: at, length: 64 * page) } == .resourceTemporarilyUnavailable)
  }
}
