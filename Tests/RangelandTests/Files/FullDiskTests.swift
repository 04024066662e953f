// SPDX-License-Identifier: Apache-2.0
//
// A disk that is full: see SmallDisk.swift.

import Glibc
import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite(.enabled(if: !SmallDisk.kinds.isEmpty, "a full disk needs the right to mount one"))
struct FullDiskTests {
  private static var pages: UInt64 { 24 }

  /// A file full of holes, on a disk that has not room for all of them.
  private struct FullDisk {
    let disk: SmallDisk
    let descriptor: FileDescriptor

    init(_ kind: SmallDisk.Kind, leaving room: Int) throws {
      disk = try SmallDisk(kind)
      descriptor = try disk.open("file")
      try #require(ftruncate(descriptor.rawValue, off_t(pages * 4096)) == 0)
      try disk.fill(leaving: room)
    }

    /// What the operating system has of a page.
    func value(_ index: UInt64) throws -> UInt64 {
      var seen: UInt64 = 0
      _ = try withUnsafeMutableBytes(of: &seen) {
        try descriptor.read(fromAbsoluteOffset: Int64(index * page), into: $0)
      }
      return seen
    }
  }

  @Test(arguments: SmallDisk.kinds, LockPolicy.allCases)
  func `a full disk is told to each who has the file, and nothing is lost`(
    _ kind: SmallDisk.Kind, _ policy: LockPolicy
  ) throws {
    let full = try FullDisk(kind, leaving: 8)
    defer { try? full.descriptor.close() }
    let pages = Self.pages
    // Nobody but the test writes back.
    let (memory, space, other) = try makeSpaces(policy)
    let object = try FileObject(descriptor: full.descriptor, memory: memory)
    let at = try space.map(
      object, length: pages * page, protection: [.read, .write], sharing: .shared)
    let there = try other.map(object, length: pages * page, protection: .read, sharing: .shared)
    for i in 0..<pages { try space.store(i + 1, at: at + i * page) }
    #expect(errno { try space.synchronize(at: at, length: pages * page) } == .noSpace)
    #expect(object.dirtyBytes > 0, "what did not fit stays dirty")
    for i in 0..<pages { #expect(try other.load(UInt64.self, at: there + i * page) == i + 1) }
    // No longer a file, even by memory that runs short.
    try space.advise(.pageOut, at: at, length: pages * page)
    for i in 0..<pages { #expect(try space.load(UInt64.self, at: at + i * page) == i + 1) }
    #expect(
      errno { try space.synchronize(at: at, length: pages * page) } == .noSpace,
      "it was tried again")
    #expect(errno { try other.synchronize(at: there, length: page) } == .noSpace, "each opener")
    try full.disk.makeRoom()
    try space.synchronize(at: at, length: pages * page)
    #expect(object.dirtyBytes == 0)
    #expect(errno { try object.synchronize() } == .noSpace, "and the handle, once")
    #expect(errno { try object.synchronize() } == nil)
    for i in 0..<pages { #expect(try full.value(i) == i + 1) }
  }

  @Test(arguments: SmallDisk.kinds, LockPolicy.allCases)
  func `what the background finds of a full disk is told at the next msync, once`(
    _ kind: SmallDisk.Kind, _ policy: LockPolicy
  ) throws {
    let full = try FullDisk(kind, leaving: 0)
    defer { try? full.descriptor.close() }
    let pages = Self.pages
    let memory = try PhysicalMemory(frameLimit: 1 << 10)
    let space = try AddressSpace(policy: policy, memory: memory)
    let object = try FileObject(descriptor: full.descriptor, memory: memory)
    let at = try space.map(
      object, length: pages * page, protection: [.read, .write], sharing: .shared)
    for i in 0..<pages { try space.store(i + 1, at: at + i * page) }
    // Of two passes one began after the stores.
    for _ in 0..<2 {
      let before = memory.files.writer.passes.load(ordering: .acquiring)
      memory.files.writer.kick()
      while memory.files.writer.passes.load(ordering: .acquiring) == before { sched_yield() }
    }
    #expect(object.dirtyBytes == pages * page)
    try full.disk.makeRoom()
    #expect(errno { try space.synchronize(at: at, length: pages * page) } == .noSpace)
    try space.synchronize(at: at, length: pages * page)
    #expect(object.dirtyBytes == 0)
    for i in 0..<pages { #expect(try full.value(i) == i + 1) }
  }

  @Test(arguments: SmallDisk.kinds, LockPolicy.allCases)
  func `where a full disk keeps pages in memory, a store that finds no frame says so`(
    _ kind: SmallDisk.Kind, _ policy: LockPolicy
  ) throws {
    let dog = Watchdog(seconds: 60, "a store that finds no frame")
    defer { dog.cancel() }
    let full = try FullDisk(kind, leaving: 4)
    defer { try? full.descriptor.close() }
    let pages = Self.pages
    let (memory, space, _) = try makeSpaces(policy, frames: 16)
    let object = try FileObject(descriptor: full.descriptor, memory: memory)
    let at = try space.map(
      object, length: pages * page, protection: [.read, .write], sharing: .shared)
    try space.advise(.random, at: at, length: pages * page)
    var stored: [UInt64] = []
    var refused: [AccessFault] = []
    for i in 0..<pages {
      do throws(AccessFault) {
        try space.store(i + 1, at: at + i * page)
        stored.append(i)
      } catch {
        refused.append(error)
      }
    }
    // Pages that were written back make room for others.
    #expect(stored.count >= 16)
    #expect(!refused.isEmpty && refused.allSatisfy { $0.reason == .outOfMemory }, "\(refused)")
    #expect(errno { try space.synchronize(at: at, length: pages * page) } == .noSpace)
    try full.disk.makeRoom()
    try space.synchronize(at: at, length: pages * page)
    for i in 0..<pages {
      let expected = stored.contains(i) ? i + 1 : 0
      #expect(try full.value(i) == expected)
      #expect(try space.load(UInt64.self, at: at + i * page) == expected)
    }
  }

  @Test(arguments: SmallDisk.kinds)
  func `what a full disk has no room for when the last user goes is told, and only that`(
    _ kind: SmallDisk.Kind
  ) throws {
    let told = Latched<[Errno?]>([])
    for makesRoom in [false, true] {
      let full = try FullDisk(kind, leaving: 0)
      defer { try? full.descriptor.close() }
      let pages = Self.pages
      let (memory, space, _) = try makeSpaces(.ranged)
      do {
        let object = try FileObject(descriptor: full.descriptor, memory: memory) { error in
          told.withLock { $0.append(error) }
        }
        _ = try space.map(
          object, length: pages * page, at: .fixed(base), protection: [.read, .write],
          sharing: .shared)
      }
      for i in 0..<pages { try space.store(i + 1, at: base + i * page) }
      #expect(errno { try space.synchronize(at: base, length: pages * page) } == .noSpace)
      if makesRoom { try full.disk.makeRoom() }
      try space.unmap(at: base, length: pages * page)
      for i in 0..<pages { #expect(try full.value(i) == (makesRoom ? i + 1 : 0)) }
    }
    #expect(told.withLock { $0 } == [.noSpace, nil])
  }

  @Test(arguments: SmallDisk.kinds)
  func `a small disk leaves nothing behind`(_ kind: SmallDisk.Kind) throws {
    let image: String
    do {
      let disk = try SmallDisk(kind)
      image = disk.image
      let descriptor = try disk.open("file")
      defer { try? descriptor.close() }
      let mounts = try FileDescriptor.open("/proc/self/mounts", .readOnly)
      defer { try? mounts.close() }
      var text = [UInt8](repeating: 0, count: 1 << 20)
      let count = try text.withUnsafeMutableBytes { try mounts.read(into: $0) }
      #expect(!String(decoding: text[..<count], as: UTF8.self).contains(disk.place))
      if !image.isEmpty { #expect(access(image, F_OK) != 0) }
    }
    if image.isEmpty { return }
    // The kernel ends it some time after the last descriptor has gone.
    let loops = (0..<256).map { "/sys/block/loop\($0)/loop/backing_file" }
    func isLeft() -> Bool {
      loops.contains { path in
        guard let file = try? FileDescriptor.open(path, .readOnly) else { return false }
        defer { try? file.close() }
        var text = [UInt8](repeating: 0, count: 4096)
        let count = (try? text.withUnsafeMutableBytes { try file.read(into: $0) }) ?? 0
        return String(decoding: text[..<count], as: UTF8.self).contains(image)
      }
    }
    var tries = 0
    while isLeft() && tries < 1000 {
      usleep(10_000)
      tries += 1
    }
    #expect(!isLeft())
  }
}
