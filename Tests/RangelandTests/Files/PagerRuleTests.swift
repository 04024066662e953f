// SPDX-License-Identifier: Apache-2.0
//
// What a pager may not do, and what the library does when memory is short while one runs.

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct PagerRuleTests {
  /// Does what the test says.
  fileprivate final class Scripted: Pager {
    let filling = Latched<(@Sendable (UInt64) -> Errno?)>({ _ in nil })
    let writing = Latched<(@Sendable (UInt64) -> Errno?)>({ _ in nil })
    /// What a store of the pager's was refused for.
    let refusal = Latched<AccessFault?>(nil)

    /// So that it keeps nobody who keeps it.
    func forget() {
      filling.withLock { $0 = { _ in nil } }
      writing.withLock { $0 = { _ in nil } }
    }

    func fill(page: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
      if let error = filling.withLock({ $0 })(page) { throw error }
      bytes.storeBytes(of: page + 1, as: UInt64.self)
    }

    func writeBack(page: UInt64, from bytes: UnsafeRawBufferPointer) throws(Errno) {
      if let error = writing.withLock({ $0 })(page) { throw error }
    }
  }

  private static func trapped(_ result: ExitTest.Result?, with message: String) -> Bool {
    String(decoding: result?.standardErrorContent ?? [], as: UTF8.self).contains(message)
  }

  fileprivate static func mapped(
    _ pager: Scripted, memory: PhysicalMemory? = nil
  ) throws -> (space: AddressSpace, file: FileObject, start: Address) {
    let space = try AddressSpace(memory: memory)
    space.memory.files.writer.stop()
    let file = try FileObject(pager: pager, name: "scripted", size: 8192, memory: space.memory)
    let start = try space.map(
      file, length: 8192, protection: [.read, .write], sharing: .shared)
    return (space, file, start)
  }

  // It waited for itself for ever.
  @Test func `A pager that needs a page of its own object traps`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      let pager = Scripted()
      let (space, _, start) = try PagerRuleTests.mapped(pager)
      pager.filling.withLock {
        $0 = { _ in
          _ = try? space.load(UInt64.self, at: start)
          return nil
        }
      }
      _ = try space.load(UInt64.self, at: start)
    }
    #expect(Self.trapped(result, with: "Pager: it needs a page of the object that it supplies"))
  }

  @Test func `A pager that changes the size of its own object traps`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      let pager = Scripted()
      let (space, file, start) = try PagerRuleTests.mapped(pager)
      pager.filling.withLock {
        $0 = { _ in
          try? file.truncate(to: 0)
          return nil
        }
      }
      _ = try space.load(UInt64.self, at: start)
    }
    #expect(Self.trapped(result, with: "changes its size"))
  }

  @Test func `A pager may use a space and another file, whose pager does the same`() throws {
    let (inner, outer) = (Scripted(), Scripted())
    let (space, _, start) = try Self.mapped(inner)
    let file = try FileObject(pager: outer, name: "outer", size: 4096, memory: space.memory)
    let other = try space.map(file, length: 4096, protection: .read)
    let heap = try space.map(length: 4096, protection: [.read, .write])
    defer { outer.forget() }
    outer.filling.withLock {
      $0 = { _ in
        let seen = try? space.load(UInt64.self, at: start + 4096)
        try? space.store(seen ?? 0, at: heap)
        return nil
      }
    }
    #expect(try space.load(UInt64.self, at: other) == 1)
    #expect(try space.load(UInt64.self, at: heap) == 2)
  }

  // An error of 0 was no error: `synchronize` said that all was well. One above 4,095 came out as another one.
  @Test(arguments: [0, -5, 4096, 1 << 20] as [Int32])
  func `What a pager throws and is no errno is EIO`(_ raw: Int32) throws {
    let pager = Scripted()
    let (space, file, start) = try Self.mapped(pager)
    try space.store(UInt64(7), at: start)
    pager.writing.withLock { $0 = { _ in Errno(rawValue: raw) } }
    #expect(throws: Errno.ioError) { try space.synchronize(at: start, length: 4096) }
    #expect(file.dirtyBytes == 4096)
    pager.filling.withLock { $0 = { _ in Errno(rawValue: raw) } }
    #expect(throws: Errno.ioError) {
      var byte: UInt8 = 0
      _ = try withUnsafeMutableBytes(of: &byte) { try file.read(at: 4096, into: $0) }
    }
    pager.writing.withLock { $0 = { _ in nil } }
    try? file.synchronize()
    try file.synchronize()
    #expect(file.dirtyBytes == 0)
  }

  // For want of memory the pages that the pager was writing were written back once more: it waited for itself.
  @Test func `Memory that is short while a pager writes back is an error, and no wait for itself`()
    throws
  {
    let dog = Watchdog(seconds: 60, "a pager without memory")
    defer { dog.cancel() }
    let memory = try PhysicalMemory(frameLimit: 4)
    let pager = Scripted()
    let (space, file, start) = try Self.mapped(pager, memory: memory)
    let heap = try space.map(length: 1 << 16, protection: [.read, .write])
    try space.store(UInt64(7), at: start)
    try space.store(UInt64(8), at: start + 4096)
    for page in 0..<2 { try space.store(UInt64(page), at: heap + UInt64(page) * 4096) }
    defer { pager.forget() }
    pager.writing.withLock {
      $0 = { _ in
        do throws(AccessFault) {
          try space.store(UInt64(1), at: heap + 4 * 4096)
        } catch {
          pager.refusal.withLock { $0 = error }
        }
        return nil
      }
    }
    try file.synchronize()
    #expect(pager.refusal.withLock { $0 }?.reason == .outOfMemory)
    // Now they are clean, and make room.
    try space.store(UInt64(1), at: heap + 4 * 4096)
  }

  // A file larger than memory could not be read or written through its handle.
  @Test func `A file larger than memory is read and written through its handle`() throws {
    let memory = try PhysicalMemory(frameLimit: 8)
    let file = try TestFile(pages: 64)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let bytes = [UInt8](repeating: 9, count: 64 * 4096)
    #expect(try bytes.withUnsafeBytes { try object.write($0, at: 0) } == bytes.count)
    var back = [UInt8](repeating: 0, count: bytes.count)
    #expect(try back.withUnsafeMutableBytes { try object.read(at: 0, into: $0) } == bytes.count)
    #expect(back == bytes)
    #expect(memory.framesInUse <= 8)
  }

  @Test func `Writing no bytes does not make an object longer`() throws {
    let memory = try PhysicalMemory(frameLimit: 8)
    let object = try FileObject(name: "m", size: 10, memory: memory)
    #expect(try object.write(UnsafeRawBufferPointer(start: nil, count: 0), at: 1000) == 0)
    #expect(object.size == 10)
  }

  @Test func `An object of a size that no file has is refused`() throws {
    let memory = try PhysicalMemory(frameLimit: 8)
    #expect(throws: Errno.invalidArgument) {
      try FileObject(name: "m", size: 1 << 63, memory: memory)
    }
    #expect(throws: Errno.invalidArgument) {
      try FileObject(pager: Scripted(), name: "m", size: .max, memory: memory)
    }
    #expect(try FileObject(name: "m", size: 1 << 63 - 1, memory: memory).size == 1 << 63 - 1)
  }

  @Test func `A name with a line break stays on its line of the listing`() throws {
    let space = try AddressSpace()
    let object = try FileObject(name: "a\nb", size: 10, memory: space.memory)
    _ = try space.map(object, length: 4096, protection: .read)
    #expect(space.maps().hasSuffix(" a\\012b\n"))
    #expect(space.maps().filter { $0 == "\n" }.count == 1)
  }
}
