// SPDX-License-Identifier: Apache-2.0

import Rangeland
import RangelandTestSupport
import SystemPackage
import Testing

@Suite struct FaultTests {
  @Test(arguments: LockPolicy.allCases)
  func `F-1 refusals have the reason and the address of Linux`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 1, [])
    try mapPages(space, 1, 1, .read)
    try mapPages(space, 2, 1, .write)
    try mapPages(space, 3, 1, .execute)
    func access(_ at: Address, _ kind: AccessKind) -> AccessFault? {
      do {
        try space.fault(at: at, kind)
        return nil
      } catch { return error }
    }
    #expect(access(base - 1, .read)?.reason == .notMapped)
    #expect(access(base - 1, .read)?.address == base - 1)
    #expect(access(base + 5, .read)?.reason == .notPermitted)
    #expect(access(base + 5, .write)?.address == base + 5)
    #expect(access(base + page, .read) == nil)
    #expect(access(base + page, .write)?.reason == .notPermitted)
    #expect(access(base + page, .execute)?.reason == .notPermitted)
    #expect(access(base + 2 * page, .read) == nil, "x86: what may be written may be read")
    #expect(access(base + 2 * page, .write) == nil)
    #expect(access(base + 3 * page, .read) == nil, "x86: what may be executed may be read")
    #expect(access(base + 3 * page, .execute) == nil)
    #expect(access(0x8000_0000_0000, .read)?.reason == .notCanonical)
    #expect(access(0x8000_0000_0000, .read)?.address == 0)
    #expect(access(0xffff_8000_0000_0000, .read)?.reason == .notMapped, "a kernel address")
    #expect(access(0xffff_ffff_ff60_0000, .read)?.reason == .notMapped, "the vsyscall page")
    #expect(access(Address.spaceEnd, .read)?.reason == .notMapped)
    #expect(access(UInt64.max, .read)?.reason == .notMapped)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a read maps the zero page, which is not counted, a write gives a page of its own`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    for i in 0..<4 as Range<UInt64> {
      #expect(try space.load(UInt64.self, at: base + i * page) == 0)
    }
    #expect(space.usage.residentAnonymousPages == 0)
    try space.store(UInt64(5), at: base + page)
    #expect(space.usage.residentAnonymousPages == 1)
    #expect(try space.load(UInt64.self, at: base + page) == 5)
    #expect(try space.load(UInt64.self, at: base + 2 * page) == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a translation that came with a write fault goes with the page or its right`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 3)
    // The faults of these stores leave their translations in this thread's cache.
    for i in 0..<3 as Range<UInt64> { try space.store(i + 1, at: base + i * page) }
    let other = TestThread {
      do {
        try space.protect(at: base, length: page, .read)
        try space.unmap(at: base + page, length: page)
        try space.dontNeed(at: base + 2 * page, length: page)
      } catch {
        Issue.record(error)
      }
    }
    other.join()
    #expect(refusal { try space.store(UInt64(9), at: base) } == .notPermitted)
    #expect(try space.load(UInt64.self, at: base) == 1)
    #expect(refusal { try space.store(UInt64(9), at: base + page) } == .notMapped)
    #expect(refusal { _ = try space.load(UInt8.self, at: base + page) } == .notMapped)
    #expect(try space.load(UInt64.self, at: base + 2 * page) == 0)
    // The thread's own calls, too.
    try space.store(UInt64(7), at: base + 2 * page)
    try space.unmap(at: base + 2 * page, length: page)
    #expect(refusal { try space.store(UInt64(9), at: base + 2 * page) } == .notMapped)
  }

  @Test(arguments: LockPolicy.allCases)
  func `an access across pages stops at the first page that refuses`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    var bytes = [UInt8](repeating: 3, count: 3 * Int(page))
    let fault = #expect(throws: AccessFault.self) {
      try bytes.withUnsafeBytes { try space.write($0, at: base) }
    }
    #expect(fault?.address == base + 2 * page)
    #expect(try space.load(UInt8.self, at: base + 2 * page - 1) == 3)
    bytes = [UInt8](repeating: 0, count: 100)
    try bytes.withUnsafeMutableBytes { try space.read(at: base + page - 50, into: $0) }
    #expect(bytes == [UInt8](repeating: 3, count: 100))
    // A value across the border of two pages.
    try space.store(UInt64(0x0102_0304_0506_0708), at: base + page - 3)
    #expect(try space.load(UInt64.self, at: base + page - 3) == 0x0102_0304_0506_0708)
    #expect(try space.load(UInt8.self, at: base + page - 3) == 8)
    #expect(try space.load(UInt8.self, at: base + page) == 5)
  }

  @Test(arguments: LockPolicy.allCases)
  func `running out of frames refuses the access and loses nothing`(_ policy: LockPolicy) throws {
    let space = try AddressSpace(policy: policy, memory: PhysicalMemory(frameLimit: 8))
    try mapPages(space, 0, 32)
    var stored: [UInt64] = []
    var refused: AccessFault.Reason?
    for i in 0..<32 as Range<UInt64> {
      refused = refusal { try space.store(i + 1, at: base + i * page) }
      if refused != nil { break }
      stored.append(i)
    }
    #expect(refused == .outOfMemory)
    #expect(stored.count >= 6)
    for i in stored { #expect(try space.load(UInt64.self, at: base + i * page) == i + 1) }
    try space.dontNeed(at: base, length: page)
    #expect(refusal { try space.store(UInt64(1), at: base + 31 * page) } == nil)
  }

  @Test(arguments: LockPolicy.allCases)
  func `F-2 concurrent first touches of a page allocate one page`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let rounds: UInt64 = 200
    try mapPages(space, 0, rounds)
    withWatchdog(seconds: 120, "first touches of one page") {
      for i in 0..<rounds {
        runThreads(4) { thread in
          do {
            try space.store(UInt8(thread + 1), at: base + i * page + UInt64(thread))
          } catch { fatalError("\(error)") }
        }
        for thread in 0..<4 as Range<UInt64> {
          #expect(
            (try? space.load(UInt8.self, at: base + i * page + thread)) == UInt8(thread + 1))
        }
      }
    }
    #expect(space.usage.residentAnonymousPages == Int(rounds))
  }
}
