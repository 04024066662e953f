// SPDX-License-Identifier: Apache-2.0
//
// A disk that is full: a small file system in memory, mounted for the test.

import Glibc
import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

/// A file system of so many KiB; unmounted when this value goes.
private final class SmallDisk {
  let path: String

  init(kilobytes: Int) throws(Errno) {
    var template = Array("/tmp/rangeland-disk-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
    path = template.withUnsafeBytes { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    if mount("tmpfs", path, "tmpfs", 0, "size=\(kilobytes)k") != 0 {
      let error = Errno(rawValue: errno)
      rmdir(path)
      throw error
    }
  }

  deinit {
    umount(path)
    rmdir(path)
  }

  static let canMount: Bool = {
    do throws(Errno) {
      _ = try SmallDisk(kilobytes: 64)
      return true
    } catch {
      return false
    }
  }()
}

@Suite(.enabled(if: SmallDisk.canMount, "a full disk needs the right to mount one"))
struct FullDiskTests {
  @Test(arguments: LockPolicy.allCases)
  func `a full disk is told to each who has the file, and nothing is lost`(
    _ policy: LockPolicy
  ) throws {
    let disk = try SmallDisk(kilobytes: 128)
    let ballast = try FileDescriptor.open(
      disk.path + "/ballast", .writeOnly, options: .create, permissions: .ownerReadWrite)
    try ballast.writeAll([UInt8](repeating: 1, count: 64 << 10))
    try ballast.close()
    let descriptor = try FileDescriptor.open(
      disk.path + "/file", .readWrite, options: .create, permissions: .ownerReadWrite)
    defer { try? descriptor.close() }
    let pages: UInt64 = 24
    // Full of holes: the disk has room for 16 pages.
    try #require(ftruncate(descriptor.rawValue, off_t(pages * 4096)) == 0)
    let (memory, space, other) = try makeSpaces(policy)
    // Nobody but the test writes back.
    memory.files.writer.stop()
    let object = try FileObject(descriptor: descriptor, memory: memory)
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
    unlink(disk.path + "/ballast")
    try space.synchronize(at: at, length: pages * page)
    #expect(object.dirtyBytes == 0)
    #expect(errno { try object.synchronize() } == .noSpace, "and the handle, once")
    #expect(errno { try object.synchronize() } == nil)
    for i in 0..<pages {
      var seen: UInt64 = 0
      _ = try withUnsafeMutableBytes(of: &seen) {
        try descriptor.read(fromAbsoluteOffset: Int64(i * page), into: $0)
      }
      #expect(seen == i + 1)
    }
  }
}
