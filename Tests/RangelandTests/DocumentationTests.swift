// SPDX-License-Identifier: Apache-2.0
//
// The code of the documentation of Rangeland, so that it compiles and does what its page says.
// Scripts/check-doc-code compares it with the pages.

import Glibc
import Rangeland
import Synchronization
import SystemPackage
import Testing

@Suite struct DocumentationTests {
  @Test func `What a space is: mappings`() throws {
    let space = try AddressSpace()
    let address = try space.map(length: 8 * 4096, protection: [.read, .write])
    try space.protect(at: address + 4096, length: 4096, .read)
    try space.unmap(at: address + 6 * 4096, length: 4096)
    for mapping in space.mappings() { print(mapping) }
    #expect(space.mappings().map(\.range.lengthInPages) == [1, 1, 4, 1])
    #expect(space.mapping(at: address + 4096)?.protection == .read)
  }

  @Test func `Choosing a policy: statistics`() throws {
    let space = try AddressSpace(policy: .semaphore, statistics: true)
    let address = try space.map(length: 4096, protection: [.read, .write])
    try space.store(UInt64(1), at: address)
    // ... a day's work of several threads ...
    let waits = space.lockStatistics!
    print(waits.waits, "waits, of which", waits.falseWaits, "were for pages nobody needed")
    #expect(waits.requests[.map] == 1)
    #expect(waits.waits == 0)
  }

  @Test func `Choosing a placement`() throws {
    let space = try AddressSpace(placement: .arenas)
    let address = try space.map(length: 1 << 20, protection: [.read, .write])
    #expect(space.mapping(at: address) != nil)
  }

  @Test func `Reading and writing: values and bytes`() throws {
    let space = try AddressSpace()
    let address = try space.map(length: 1 << 20, protection: [.read, .write])
    try space.store(UInt32(7), at: address)
    let seven = try space.load(UInt32.self, at: address)

    let message = Array("hello".utf8)
    try space.write(message.span.bytes, at: address + 8)
    let bytes = try space.read(at: address + 8, count: 5)
    #expect(seven == 7)
    #expect(bytes == message)
    let none = try space.read(at: address, count: 0)
    #expect(none.isEmpty)
    let end: Address = address + 0x10_0000
    #expect(throws: AccessFault(reason: .notMapped, address: end, access: .read)) {
      try space.read(at: end - 2, count: 4)
    }
    #expect(throws: AccessFault(reason: .notMapped, address: end, access: .write)) {
      try space.write(message.span.bytes, at: end - 2)
    }
    let written = try space.read(at: end - 2, count: 2)
    #expect(written == Array("he".utf8))
  }

  @Test func `Reading and writing: a lock in the space`() throws {
    let space = try AddressSpace()
    let word = try space.map(length: 4096, protection: [.read, .write])
    // 0 = free, 1 = taken.
    while try space.compareExchange(at: word, expected: 0, desired: 1) != 0 {}
    // ... what the lock guards ...
    _ = try space.compareExchange(at: word, expected: 1, desired: 0)
    #expect(try space.load(UInt64.self, at: word) == 0)
  }

  @Test func `Reading and writing: between spaces`() throws {
    let guest = try AddressSpace()
    let debugger = try AddressSpace(memory: guest.memory)
    let variable = try guest.map(length: 8192, protection: [.read, .write])
    let copy = try debugger.map(length: 8192, protection: [.read, .write])
    try guest.store(UInt64(41), at: variable)

    let count = try debugger.read(from: guest, at: variable, into: copy, length: 8192)
    try debugger.store(UInt64(42), at: copy)
    _ = try debugger.write(to: guest, at: variable, from: copy, length: 8)
    #expect(count == 8192)
    #expect(try guest.load(UInt64.self, at: variable) == 42)
  }

  @Test func `Reading and writing: ahead of time`() throws {
    let space = try AddressSpace()
    let address = try space.map(length: 1 << 16, protection: [.read, .write])
    try space.advise(.populateWrite, at: address, length: 1 << 16)
    #expect(space.usage.residentAnonymousPages == 16)
  }

  @Test func `Files: shared and private`() throws {
    let descriptor = FileDescriptor(rawValue: fileno(tmpfile()))
    try descriptor.resize(to: 3 * 4096)
    let space = try AddressSpace()
    let file = try FileObject(descriptor: descriptor, memory: space.memory)
    let shared = try space.map(
      file, length: file.size, protection: [.read, .write], sharing: .shared)
    let own = try space.map(file, offset: 4096, length: 4096, protection: [.read, .write])

    try space.store(UInt64(1), at: shared + 4096)
    try space.store(UInt64(2), at: own)
    try space.synchronize(at: shared, length: file.size)
    #expect(try space.load(UInt64.self, at: shared + 4096) == 1)
    #expect(file.dirtyBytes == 0)
    var value: UInt64 = 0
    _ = try withUnsafeMutableBytes(of: &value) {
      try descriptor.read(fromAbsoluteOffset: 4096, into: $0)
    }
    #expect(value == 1)
  }

  @Test func `Files: memory that spaces share`() throws {
    let memory = try PhysicalMemory(frameLimit: 1 << 16)
    let first = try AddressSpace(memory: memory)
    let second = try AddressSpace(memory: memory)
    let mailbox = try FileObject(name: "mailbox", size: 4096, memory: memory)
    let here = try first.map(
      mailbox, length: 4096, protection: [.read, .write], sharing: .shared)
    let there = try second.map(mailbox, length: 4096, protection: .read, sharing: .shared)
    try first.store(UInt64(42), at: here)
    #expect(try second.load(UInt64.self, at: there) == 42)
  }

  /// Pages of a table of squares, and what was written over it.
  private final class Squares: Pager {
    let changed = Mutex<[UInt64: [UInt8]]>([:])

    func fill(page: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
      if let old = changed.withLock({ $0[page] }) {
        bytes.copyBytes(from: old)
        return
      }
      for i in 0..<512 {
        let number = page * 512 + UInt64(i)
        bytes.storeBytes(of: number * number, toByteOffset: i * 8, as: UInt64.self)
      }
    }

    func writeBack(page: UInt64, from bytes: UnsafeRawBufferPointer) throws(Errno) {
      changed.withLock { $0[page] = Array(bytes) }
    }
  }

  @Test func `Files: a pager`() throws {
    let space = try AddressSpace()
    let squares = try FileObject(
      pager: Squares(), name: "squares", size: 1 << 30, memory: space.memory)
    let table = try space.map(
      squares, length: squares.size, protection: [.read, .write], sharing: .shared)
    print(try space.load(UInt64.self, at: table + 8 * 1_000_000))
    #expect(try space.load(UInt64.self, at: table + 8 * 1_000_000) == 1_000_000_000_000)
    try space.store(UInt64(0), at: table)
    try space.synchronize(at: table, length: 4096)
    #expect(squares.dirtyBytes == 0)
    #expect(squares.residentBytes == 8192)
  }

  @Test func `Fork a space`() throws {
    let space = try AddressSpace()
    let address = try space.map(length: 4096, protection: [.read, .write])
    try space.store(UInt64(1), at: address)
    let child = try space.fork()
    try space.store(UInt64(2), at: address)
    print(try child.load(UInt64.self, at: address))
    #expect(try child.load(UInt64.self, at: address) == 1)
  }

  @Test func `Fork: what to save next`() throws {
    let space = try AddressSpace()
    let address = try space.map(length: 1 << 20, protection: [.read, .write])
    for page in 0..<256 { try space.store(UInt64(page), at: address + UInt64(page) * 4096) }
    let base = try space.fork()
    _ = try space.writtenPages(in: .wholeSpace, resetting: true)
    try space.store(UInt64(9), at: address + 4096)
    let changed = try space.writtenPages(in: .wholeSpace)
    #expect(changed == [AddressRange(pageOf: address + 4096)])
    #expect(try base.load(UInt64.self, at: address + 4096) == 1)
  }

  @Test func `Limits of a space`() throws {
    let memory = try PhysicalMemory(frameLimit: 1000)
    let space = try AddressSpace(
      memory: memory, limits: Limits(addressSpace: 1 << 30, mappingCount: 100))
    let address = try space.map(length: 1 << 20, protection: [.read, .write])
    do {
      _ = try space.map(length: 1 << 30, protection: .read)
    } catch {
      print(error == .noMemory)
    }
    space.limits.addressSpace = nil
    #expect(space.mapping(at: address) != nil)
    _ = try space.map(length: 1 << 30, protection: .read)
    #expect(memory.frameLimit == 1000)
  }

  @Test func `A special mapping`() throws {
    let clock = SpecialMapping(
      name: "[ticks]", kind: .device,
      content: .fault { page, bytes in
        bytes.storeBytes(of: UInt64(page) + 100, as: UInt64.self)
        return page == 0
      })
    let space = try AddressSpace()
    let address = try space.insert(clock, length: 4096, protection: .read, allowed: .read)
    print(try space.load(UInt64.self, at: address))
    #expect(try space.load(UInt64.self, at: address) == 100)
    #expect(throws: Errno.permissionDenied) {
      try space.protect(at: address, length: 4096, [.read, .write])
    }
    #expect(space.maps().contains("[ticks]"))
  }

  @Test func `Errors are typed`() throws {
    let space = try AddressSpace()
    let address = try space.map(length: 4096, protection: .read)
    do {
      try space.unmap(at: address + 1, length: 4096)
    } catch {
      print(error == .invalidArgument, error)
    }
    do {
      try space.store(UInt8(1), at: address)
    } catch {
      print(error.reason, error.address == address, error.access)
    }
    #expect(throws: AccessFault(reason: .notPermitted, address: address, access: .write)) {
      try space.store(UInt8(1), at: address)
    }
  }

  @Test func `The Linux face`() throws {
    let space = try AddressSpace()
    // mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    let result = space.systemCall(9, LinuxArguments(0, 8192, 3, 0x22, .max, 0))
    let isError = (-4095 ... -1).contains(result)
    print(isError ? "errno \(-result)" : String(result, radix: 16))
    // munmap(result + 1, 4096)
    #expect(!isError)
    #expect(space.systemCall(.munmap, LinuxArguments(UInt64(result) + 1, 4096)) == -22)
    #expect(space.systemCall(1, LinuxArguments()) == -38)
  }

  @Test func `The Linux face: the heap`() throws {
    let space = try AddressSpace()
    space.heapStart = 0x60_0000
    let wanted: Address = 0x60_4000
    let now = space.setBreak(to: wanted)
    #expect(now == wanted)
    #expect(space.maps().contains("[heap]"))
  }
}
