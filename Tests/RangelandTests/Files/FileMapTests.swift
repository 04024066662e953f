// SPDX-License-Identifier: Apache-2.0

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct FileMapTests {
  @Test(arguments: LockPolicy.allCases, TestFile.folders)
  func `a private mapping reads the file, copies what it writes, and counts both`(
    _ policy: LockPolicy, _ folder: String
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let file = try TestFile(pages: 8, in: folder)
    try file.descriptor.resize(to: 7 * 4096 + 100)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(
      object, offset: page, length: 10 * page, protection: [.read, .write])
    #expect(try byte(space, at) == 2)
    #expect(try byte(space, at + 3 * page + 5) == 5)
    #expect(try byte(space, at + 6 * page + 99) == 8)
    #expect(try byte(space, at + 6 * page + 100) == 0, "the rest of the last page is zero")
    #expect(refusal { _ = try byte(space, at + 7 * page) } == .noPage)
    func resident() -> (anonymous: Int, file: Int) {
      let usage = space.usage
      return (
        usage.residentAnonymousPages, usage.residentFilePages + usage.residentSharedPages
      )
    }
    let before = resident()
    #expect(before.anonymous == 0 && before.file >= 3)
    try space.store(UInt8(77), at: at)
    #expect(resident() == (1, before.file - 1), "C10: one file page less, one anonymous more")
    #expect(try byte(space, at) == 77)
    #expect(try byte(space, at + 1) == 2, "the rest was copied")
    #expect(try file.byte(4096) == 2)
    #expect(object.dirtyBytes == 0)
    try space.dontNeed(at: at, length: page)
    #expect(try byte(space, at) == 2, "as the file again")
    try space.unmap(at: at, length: 10 * page)
    #expect(resident() == (0, 0))
  }

  @Test(arguments: LockPolicy.allCases, TestFile.folders)
  func `shared writes are seen at once by all who map the file, and reach it by msync`(
    _ policy: LockPolicy, _ folder: String
  ) throws {
    let (memory, space, other) = try makeSpaces(policy)
    let file = try TestFile(pages: 4, in: folder)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    // Another handle of the same file is the same object.
    let again = try FileObject(descriptor: file.descriptor, memory: memory)
    #expect(again.object == object.object)
    let a = try space.map(
      object, length: 4 * page, protection: [.read, .write], sharing: .shared)
    let b = try other.map(again, offset: page, length: page, protection: .read)
    #expect(try byte(other, b) == 2)
    try space.store(UInt8(90), at: a + page)
    #expect(try byte(other, b) == 90)
    #expect(object.dirtyBytes == page)
    #expect(try file.byte(4096) == 2, "not yet")
    try space.synchronize(at: a, length: 4 * page)
    #expect(object.dirtyBytes == 0)
    #expect(try file.byte(4096) == 90)
    // Write-notify: the next store is noticed again.
    try space.store(UInt8(91), at: a + page)
    #expect(object.dirtyBytes == page)
    try space.unmap(at: a, length: 4 * page)
    memory.writeBackAll()
    #expect(try file.byte(4096) == 91)
  }

  @Test(arguments: LockPolicy.allCases)
  func `V3 the first write to a shared page faults once, and is told until it is reset`(
    _ policy: LockPolicy
  ) throws {
    let memory = try PhysicalMemory(frameLimit: 1000)
    memory.files.writer.stop()
    let space = try AddressSpace(policy: policy, memory: memory, statistics: true)
    let file = try TestFile(pages: 4)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(
      object, length: 4 * page, protection: [.read, .write], sharing: .shared)
    for i in 0..<4 as Range<UInt64> { _ = try byte(space, at + i * page) }
    let range = AddressRange(start: at, end: at + 4 * page)
    #expect(try space.writtenPages(in: range).isEmpty)
    let hook = Latched(0)
    object.source.trace { action in
      if case .write = action { hook.withLock { $0 += 1 } }
      return nil
    }
    for round in 0..<3 as Range<UInt8> {
      #expect(object.dirtyBytes == 0)
      try space.store(round, at: at + 2 * page)
      #expect(object.dirtyBytes == page, "the first store faults")
      try space.store(round, at: at + 2 * page + 1)
      #expect(object.dirtyBytes == page)
      let written = AddressRange(pageOf: at + 2 * page)
      #expect(try space.writtenPages(in: range, resetting: true) == [written])
      #expect(try space.writtenPages(in: range).isEmpty)
      try space.store(round, at: at + 2 * page + 2)
      #expect(try space.writtenPages(in: range, resetting: true) == [written])
      try object.synchronize()
      #expect(hook.withLock { $0 } == Int(round) + 1)
    }
    #expect(try file.byte(2 * 4096 + 2) == 2)
  }

  @Test(arguments: LockPolicy.allCases)
  func `V4 a file lives after close and unlink until its last piece goes, and ends once`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let ended = Latched(0)
    var at: Address = 0
    do {
      let file = try TestFile(pages: 6)
      let object = try FileObject(descriptor: file.descriptor, memory: memory) { error in
        precondition(error == nil)
        ended.withLock { $0 += 1 }
      }
      at = try space.map(
        object, length: 6 * page, protection: [.read, .write], sharing: .shared)
    }
    #expect(try byte(space, at + 5 * page) == 6, "read after close and unlink")
    #expect(space.maps().contains("(deleted)"))
    try space.protect(at: at + 2 * page, length: page, .read)
    try space.store(UInt8(3), at: at)
    for i in [1, 0, 5, 3, 4] as [UInt64] {
      try space.unmap(at: at + i * page, length: page)
      #expect(ended.withLock { $0 } == 0)
    }
    #expect(try byte(space, at + 2 * page) == 3)
    try space.unmap(at: at, length: 6 * page)
    #expect(ended.withLock { $0 } == 1)
    #expect(memory.framesInUse == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `V5 pieces keep their offsets, and merge where these continue`(_ policy: LockPolicy) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let file = try TestFile(pages: 8)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    func map(_ place: UInt64, _ offset: UInt64, _ pages: UInt64, _ file: FileObject) throws {
      _ = try space.map(
        file, offset: offset * page, length: pages * page, at: .fixed(base + place * page),
        protection: .read)
    }
    func offsets() -> [String] {
      space.mappings(in: AddressRange(start: base, end: base + 64 * page)).map {
        "\(($0.range.start - base) / page)..<\(($0.range.end - base) / page)@\($0.pageOffset)"
      }
    }
    try map(0, 0, 4, object)
    try map(4, 4, 4, object)
    #expect(offsets() == ["0..<8@0"])
    try space.protect(at: base + page, length: page, [.read, .write])
    #expect(offsets() == ["0..<1@0", "1..<2@1", "2..<8@2"])
    try space.protect(at: base + page, length: page, .read)
    #expect(
      offsets() == ["0..<1@0", "1..<2@1", "2..<8@2"], "what was writable keeps its charge")
    try space.unmap(at: base + page, length: page)
    try map(1, 1, 1, object)
    #expect(offsets() == ["0..<8@0"])
    try space.unmap(at: base + page, length: page)
    try map(1, 2, 1, object)
    #expect(offsets() == ["0..<1@0", "1..<2@2", "2..<8@2"])
    #expect(try byte(space, base + page) == 3)
    #expect(try byte(space, base + 7 * page) == 8)
    let again = try FileObject(descriptor: file.descriptor, memory: memory)
    try map(8, 8, 2, again)
    #expect(offsets().count == 4, "opened by another")
    let moved = try space.remap(at: base + 3 * page, length: 2 * page, to: 3 * page, .anywhere)
    #expect(try byte(space, moved) == 4)
    #expect(space.mapping(at: moved)?.pageOffset == 3)
  }

  @Test func `C2 refuses files in Linux's order`() throws {
    let (memory, space, _) = try makeSpaces(.ranged)
    let file = try TestFile(pages: 8)
    let readOnly = try file.open(.readOnly)
    let writeOnly = try file.open(.writeOnly)
    let folder = try FileDescriptor.open("/tmp", .readOnly)
    let pipe = try FileDescriptor.pipe()
    let p = page
    func map(
      _ at: UInt64, _ length: UInt64, _ rights: UInt64, _ flags: UInt64, _ file: FileDescriptor?,
      _ offset: UInt64 = 0
    ) -> Int32 {
      let result = space.systemCall(
        .mmap,
        LinuxArguments(
          at, length, rights, flags, UInt64(bitPattern: Int64(file?.rawValue ?? -1)), offset))
      if result < 0 && result >= -4095 { return Int32(-result) }
      try! space.unmap(at: UInt64(result), length: length)
      return 0
    }
    let rw = file.descriptor
    // What Linux 6.18 answered to the same calls.
    #expect(map(0, 0, 1, 1, rw) == 22)
    #expect(map(0, 0, 1, 1, nil) == 9)
    #expect(map(0, 0, 1, 1, nil, 1) == 22)
    #expect(map(0, 0, 1, 1, writeOnly) == 22)
    #expect(map(0, p, 1, 1, writeOnly) == 13)
    #expect(map(0, p, 1, 2, writeOnly) == 13)
    #expect(map(0, p, 3, 1, readOnly) == 13)
    #expect(map(0, p, 3, 2, readOnly) == 0)
    #expect(map(0, p, 1, 1, folder) == 19)
    #expect(map(0, p, 3, 1, folder) == 13)
    #expect(map(0, p, 1, 0x102, folder) == 19)
    #expect(map(0, p, 1, 2, pipe.readEnd) == 19)
    #expect(map(0, p, 1, 2, pipe.writeEnd) == 13)
    #expect(map(0, p, 1, 0x102, rw) == 22)
    #expect(map(0, p, 1, 0x101, rw) == 22)
    #expect(map(0, p, 3, 0x101, readOnly) == 13)
    #expect(map(0, p, 3, 0, rw) == 22)
    #expect(map(0, p, 3, 4, rw) == 22)
    #expect(map(0, p, 3, 3, rw) == 0)
    #expect(map(0, p, 3, 3 | 1 << 27, rw) == 0)
    #expect(map(0, p, 3, 3 | 0x8_0000, rw) == 95)
    #expect(map(base, p, 3, 3 | 0x10_0000, rw) == 95)
    #expect(map(0, p, 3, 3 | 1 << 25, readOnly) == 95)
    #expect(map(0, p, 3, 1 | 0x8_0000, rw) == 95)
    #expect(map(0, p, 3, 0x4_0001, rw) == 22)
    #expect(map(0, p, 3, 1, rw, 0 &- p) == 75)
    #expect(map(0, p, 3, 1, rw, 1 << 63) == 75)
    #expect(map(0, p, 3, 1, rw, 1 << 63 - p) == 75)
    #expect(map(0, p, 3, 1, rw, 1 << 63 - 2 * p) == 0)
    #expect(map(0, 2 * p, 3, 1, rw, 1 << 63 - 2 * p) == 75)
    #expect(map(0, p, 3, 1, writeOnly, 1 << 63) == 75)
    #expect(map(0, p, 3, 0, writeOnly, 1 << 63) == 75)
    #expect(map(1, p, 3, 0x11, rw, 1 << 63) == 22)
    #expect(map(0, 1 << 47, 3, 1, rw) == 12)
    #expect(map(0, 0 &- p, 3, 1, rw) == 12)
    #expect(map(0, p, 3, 1, rw, 100 * p) == 0)
    // Rights that the descriptor lacks cannot be given later.
    let object = try FileObject(descriptor: readOnly, memory: memory)
    let at = try space.map(object, length: p, protection: .read, sharing: .shared)
    #expect(space.mapping(at: at)?.sharing == .shared)
    #expect(errno { try space.protect(at: at, length: p, [.read, .write]) } == .permissionDenied)
    #expect(refusal { try space.store(UInt8(1), at: at) } == .notPermitted)
    for each in [readOnly, writeOnly, folder, pipe.readEnd, pipe.writeEnd] { try each.close() }
  }

  @Test(arguments: LockPolicy.allCases)
  func `memory objects are shared between spaces, and counted as shared memory`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, other) = try makeSpaces(policy)
    let object = try FileObject(name: "/memfd:test", size: 4 * page, memory: memory)
    let a = try space.map(
      object, length: 4 * page, protection: [.read, .write], sharing: .shared)
    let b = try other.map(
      object, length: 8 * page, protection: [.read, .write], sharing: .shared)
    try space.store(UInt64(5), at: a + page)
    #expect(try other.load(UInt64.self, at: b + page) == 5)
    #expect(other.usage.residentSharedPages == 1)
    #expect(refusal { _ = try byte(other, b + 4 * page) } == .noPage)
    try object.truncate(to: 6 * page)
    try other.store(UInt8(1), at: b + 5 * page)
    #expect(object.residentBytes == 2 * page)
    #expect(space.maps().contains("/memfd:test"))
    #expect(object.dirtyBytes == 0)
    memory.writeBackAll()
    #expect(try space.load(UInt64.self, at: a + page) == 5)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a write to a guarded page of a file gives its mapping no identity`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let object = try FileObject(name: "guarded", size: 4 * page, memory: memory)
    let at = try space.map(object, length: 4 * page, protection: [.read, .write])
    try space.advise(.installGuard, at: at, length: 4 * page)
    #expect(refusal { try space.store(UInt8(1), at: at) } == .notMapped)
    // One with an identity of a parent does not merge with one without.
    try space.protect(at: at, length: page, .read)
    let child = try space.fork()
    try child.protect(at: at, length: page, [.read, .write])
    #expect(child.mappings(in: AddressRange(start: at, end: at + 4 * page)).count == 1)
  }
}
