// SPDX-License-Identifier: Apache-2.0

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct FileErrorTests {
  @Test(arguments: LockPolicy.allCases)
  func `an error of reading is a bus error on that page only, and the next access asks again`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let pager = TestPager(readAhead: 4)
    pager.state.withLock { $0.failing[5] = .ioError }
    let object = try FileObject(pager: pager, name: "pager", size: 16 * page, memory: memory)
    let at = try space.map(object, length: 16 * page, protection: [.read, .write])
    #expect(refusal { _ = try byte(space, at + 5 * page) } == .noPage)
    #expect(refusal { try space.store(UInt8(1), at: at + 5 * page) } == .noPage)
    #expect(try byte(space, at + 4 * page) == 5)
    #expect(try byte(space, at + 6 * page) == 7)
    pager.state.withLock { $0.failing = [:] }
    #expect(try byte(space, at + 5 * page) == 6)
  }

  @Test(arguments: LockPolicy.allCases)
  func `errors of writing back are reported once to each opener, and pages stay dirty`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, other) = try makeSpaces(policy)
    let pager = TestPager()
    let first = try FileObject(pager: pager, name: "pager", size: 4 * page, memory: memory)
    let a = try space.map(first, length: 4 * page, protection: [.read, .write], sharing: .shared)
    let b = try other.map(first, length: 4 * page, protection: [.read, .write], sharing: .shared)
    try space.store(UInt8(88), at: a)
    pager.state.withLock { $0.writeFailure = .noSpace }
    memory.writeBackAll()
    #expect(first.dirtyBytes == page, "not lost")
    pager.state.withLock { $0.writeFailure = nil }
    #expect(errno { try space.synchronize(at: a, length: 4 * page) } == .noSpace)
    #expect(pager.state.withLock { $0.written[0] } == 88)
    #expect(errno { try space.synchronize(at: a, length: 4 * page) } == nil, "once")
    #expect(errno { try other.synchronize(at: b, length: page) } == .noSpace, "each opener")
    #expect(errno { try first.synchronize() } == .noSpace)
    #expect(errno { try first.synchronize() } == nil)
    let late = try other.map(first, length: page, protection: [.read, .write], sharing: .shared)
    #expect(errno { try other.synchronize(at: late, length: page) } == nil, "known before")
  }

  @Test(arguments: LockPolicy.allCases)
  func `msync writes, then makes durable, and an injected error of either is reported`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let file = try TestFile(pages: 4)
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let at = try space.map(
      object, length: 4 * page, protection: [.read, .write], sharing: .shared)
    let trace = Latched<(actions: [FileAction], failing: FileAction?)>(([], nil))
    object.source.trace { action in
      trace.withLock {
        $0.actions.append(action)
        return $0.failing == action ? .ioError : nil
      }
    }
    try space.store(UInt8(1), at: at)
    try space.store(UInt8(1), at: at + page)
    try space.store(UInt8(1), at: at + 3 * page)
    trace.withLock { $0.actions = [] }
    try space.synchronize(at: at, length: 4 * page)
    #expect(
      trace.withLock { $0.actions }
        == [.write(page: 0, count: 2), .write(page: 3, count: 1), .synchronize])
    trace.withLock { $0.failing = .synchronize }
    #expect(errno { try space.synchronize(at: at, length: 4 * page) } == .ioError)
    trace.withLock { $0.failing = .write(page: 3, count: 1) }
    try space.store(UInt8(2), at: at + 3 * page)
    #expect(errno { try space.synchronize(at: at, length: 4 * page) } == .ioError)
    trace.withLock { $0.failing = nil }
    #expect(try file.byte(3 * 4096) == 1)
    try space.synchronize(at: at, length: 4 * page)
    #expect(try file.byte(3 * 4096) == 2)
  }

  @Test func `msync refuses as Linux does, and does all that is mapped`() throws {
    let (memory, space, _) = try makeSpaces(.ranged)
    let pager = TestPager()
    let object = try FileObject(pager: pager, name: "pager", size: 4 * page, memory: memory)
    for i in [0, 2] as [UInt64] {
      _ = try space.map(
        object, offset: i * page, length: page, at: .fixed(base + i * page),
        protection: [.read, .write], sharing: .shared)
      try space.store(UInt8(200), at: base + i * page)
    }
    func msync(_ start: Address, _ length: UInt64, _ flags: UInt64) -> Int {
      -space.systemCall(.msync, LinuxArguments(start, length, flags))
    }
    #expect(msync(base, page, 8) == 22)
    #expect(msync(base + 1, page, 4) == 22)
    #expect(msync(base, page, 5) == 22)
    #expect(msync(base, .max, 4) == 0, "wraps to nothing")
    #expect(msync(base, .max - 8191, 4) == 12)
    #expect(msync(base, 0, 4) == 0)
    #expect(msync(base, 3 * page, 1) == 12)
    #expect(pager.state.withLock { $0.synchronizes } == 0)
    #expect(msync(base, 3 * page, 4) == 12)
    #expect(pager.state.withLock { $0.written } == [0: 200, 2: 200], "after the rest")
    #expect(msync(base, 2 * page, 2) == 12)
    #expect(msync(base, page, 2) == 0)
    #expect(msync(base + page, page, 4) == 12)
  }

  @Test func `what cannot be written at the end is told to who asked`() throws {
    let memory = try PhysicalMemory(frameLimit: 100)
    let space = try AddressSpace(memory: memory)
    let pager = TestPager()
    let told = Latched<[Errno?]>([])
    do {
      let object = try FileObject(
        pager: pager, name: "pager", size: page, memory: memory
      ) { error in told.withLock { $0.append(error) } }
      _ = try space.map(
        object, length: page, at: .fixed(base), protection: [.read, .write], sharing: .shared)
    }
    try space.store(UInt8(1), at: base)
    pager.state.withLock { $0.writeFailure = .noSpace }
    try space.unmap(at: base, length: page)
    #expect(told.withLock { $0 } == [.noSpace])
  }
}
