// SPDX-License-Identifier: Apache-2.0
//
// MAP_GROWSDOWN: stacks that grow by faults, and the gap below them. Row for row what Linux 6.18 did when it was
// asked (a program of the same calls).

import CRangeland
import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct StackTests {
  private func stack(
    _ space: AddressSpace, _ index: UInt64, _ pages: UInt64,
    _ protection: Protection = [.read, .write]
  ) throws {
    _ = try space.map(
      length: pages * page, at: .fixed(base + index * page), protection: protection,
      options: .growsDown)
  }

  private func touch(_ space: AddressSpace, _ index: UInt64) -> AccessFault.Reason? {
    refusal { try space.store(UInt8(1), at: base + index * page + 8) }
  }

  @Test(arguments: LockPolicy.allCases)
  func `an access below a stack extends it, up to 256 pages from what can be accessed`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try stack(space, 600, 16)
    #expect(touch(space, 599) == nil)
    #expect(layout(space) == ["0..<4 rw-p", "599..<616 rw-p"])
    #expect(touch(space, 400) == nil)
    #expect(touch(space, 260) == nil)
    #expect(touch(space, 259) == .notMapped)
    #expect(layout(space) == ["0..<4 rw-p", "260..<616 rw-p"])
    #expect(space.usage.stackPages == 356 && space.usage.dataPages == 4)
    #expect(space.usage.residentAnonymousPages == 3)
    // A read extends too.
    #expect(refusal { _ = try space.load(UInt8.self, at: base + 261 * page) } == nil)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `what cannot be accessed, and other stacks, keep no distance`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try stack(space, 600, 16)
    try mapPages(space, 595, 2, [])
    try mapPages(space, 500, 2)
    #expect(touch(space, 598) == nil)
    #expect(touch(space, 597) == nil)
    #expect(touch(space, 596) == .notPermitted)
    #expect(layout(space) == ["500..<502 rw-p", "595..<597 ---p", "597..<616 rw-p"])
    try stack(space, 900, 16)
    try stack(space, 880, 2)
    #expect(touch(space, 882) == nil)
    // They touch now, and stay two.
    #expect(layout(space).suffix(2) == ["880..<882 rw-p", "882..<916 rw-p"])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `a stack grows before its rights are looked at`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try stack(space, 600, 16, .read)
    #expect(touch(space, 599) == .notPermitted)
    #expect(layout(space) == ["599..<616 r--p"])
    try stack(space, 2000, 16, [])
    #expect(touch(space, 1999) == .notPermitted)
    #expect(layout(space).last == "1999..<2016 ---p")
  }

  @Test(arguments: LockPolicy.allCases)
  func `limits: RLIMIT_STACK of one stack, RLIMIT_AS of all`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try stack(space, 20000, 16)
    space.limits.stack = 2048 * page
    #expect(touch(space, 20016 - 2049) == .notMapped)
    #expect(touch(space, 20016 - 2048) == nil)
    #expect(space.usage.stackPages == 2048)
    space.limits.stack = nil
    space.limits.addressSpace = 2050 * page
    #expect(touch(space, 20016 - 2051) == .notMapped)
    #expect(touch(space, 20016 - 2050) == nil)
    #expect(space.usage.virtualPages == 2050)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `a stack grows into memory that nothing was ever mapped in`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    // Over the border of a leaf that covers whole cells.
    _ = try space.map(
      length: page, at: .fixed(base), protection: [.read, .write], options: .growsDown)
    try space.store(UInt64(7), at: base - 3 * page)
    #expect(try space.load(UInt64.self, at: base - 3 * page) == 7)
    #expect(
      space.mappings().map(\.range) == [AddressRange(start: base - 3 * page, end: base + page)])
    space.checkInvariants()
    try space.unmap(at: base - 3 * page, length: 4 * page)
    #expect(space.usage.stackPages == 0 && space.usage.virtualPages == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `mprotect from the start of a stack`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    func protect(_ index: UInt64, _ pages: UInt64, _ rights: UInt64) -> Int {
      space.systemCall(.mprotect, LinuxArguments(base + index * page, pages * page, rights))
    }
    let (down, up): (UInt64, UInt64) = (0x100_0000, 0x200_0000)
    try stack(space, 600, 16)
    try mapPages(space, 700, 4)
    #expect(protect(608, 2, 1 | down) == 0)
    #expect(layout(space) == ["600..<610 r--p", "610..<616 rw-p", "700..<704 rw-p"])
    // From a hole on, the first mapping counts.
    #expect(protect(599, 2, 0 | down) == 0)
    #expect(layout(space).prefix(2) == ["600..<601 ---p", "601..<610 r--p"])
    #expect(protect(700, 2, 1 | down) == -22)
    #expect(protect(700, 2, 1 | up) == -22)
    #expect(protect(710, 2, 1 | up) == -12)
    #expect(protect(690, 2, 1 | down) == -12)
    #expect(protect(700, 2, 1 | up | down) == -22)
    #expect(protect(700, 0, 1 | down) == 0)
    // A hole behind: what is before it is changed.
    #expect(protect(612, 10, 0 | down) == -12)
    #expect(layout(space).contains("610..<616 ---p"))
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `flags of mmap`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    func map(_ address: UInt64, _ pages: UInt64, _ flags: UInt64) -> Int {
      space.systemCall(.mmap, LinuxArguments(address, pages * page, 3, flags | 0x20, .max, 0))
    }
    let (shared, `private`): (UInt64, UInt64) = (1, 2)
    // MAP_SHARED_VALIDATE, shared stacks; unknown bits, MAP_SYNC, MAP_NONBLOCK and others change nothing.
    #expect(map(0, 2, 3) == -22)
    #expect(map(0, 2, shared | 0x100) == -22)
    #expect(map(0, 2, shared | 0x8_0000) > 0)
    #expect(map(0, 2, `private` | 0x4003_5800) > 0)
    // MAP_HUGETLB without a pool, with sizes that exist and that do not.
    #expect(map(0, 2, `private` | 0x4_0000) == -12)
    #expect(map(0, 2, `private` | 0x4_0000 | 30 << 26) == -12)
    #expect(map(0, 2, `private` | 0x4_0000 | 3 << 26) == -22)
    #expect(map(0, 2, `private` | 0x4_0100) == -22)
    // MAP_32BIT: bottom-up between 1 and 2 GiB, hints up to there.
    #expect(map(0, 2, `private` | 0x40) == 0x4000_0000)
    #expect(map(base, 1, `private` | 0x40) == 0x4000_2000)
    #expect(map(0x5000_0000, 1, `private` | 0x40) == 0x5000_0000)
    #expect(map(0x1000_0000, 1, `private` | 0x40) == 0x1000_0000)
    #expect(map(0, 512, `private` | 0x40) == 0x4020_0000)
    #expect(map(0, 1 << 18, `private` | 0x40) == -12)
    // Hints end where the gap below a stack begins.
    try stack(space, 600, 16)
    #expect(map(base + 340 * page, 4, `private`) == Int(base + 340 * page))
    try space.unmap(at: base + 340 * page, length: 4 * page)
    #expect(map(base + 341 * page, 4, `private`) != Int(base + 341 * page))
    #expect(map(base + 400 * page, 4, `private` | 0x10_0000) == Int(base + 400 * page))
  }

  @Test(arguments: LockPolicy.allCases)
  func `overcommit`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let tebibyte: UInt64 = 1 << 40
    space.limits.overcommit = .heuristic(memory: 23 << 30)
    #expect(
      errno { _ = try space.map(length: tebibyte, protection: [.read, .write]) } == .noMemory)
    #expect(
      errno {
        _ = try space.map(length: tebibyte, protection: [], sharing: .shared)
      } == .noMemory)
    let none = try space.map(length: tebibyte, protection: [])
    #expect(
      errno { try space.protect(at: none, length: tebibyte, [.read, .write]) } == .noMemory)
    _ = try space.map(length: tebibyte, protection: [.read, .write], options: .noReserve)
    _ = try space.map(length: tebibyte, protection: [.read], sharing: .shared, options: .noReserve)
    // Each for itself.
    for _ in 0..<4 { _ = try space.map(length: 20 << 30, protection: [.read, .write]) }

    let strict = try makeSpace(policy)
    strict.limits.overcommit = .strict(limit: 10 * page)
    try mapPages(strict, 0, 6)
    try mapPages(strict, 20, 100, .read)
    #expect(errno { try mapPages(strict, 10, 4) } == .noMemory)
    try mapPages(strict, 10, 3)
    #expect(strict.usage.promisedPages == 9)
    // Replaced pages are credited; MAP_NORESERVE means nothing.
    try mapPages(strict, 2, 3)
    #expect(
      errno {
        _ = try strict.map(length: page, protection: [.read, .write], options: .noReserve)
      } == .noMemory)
    #expect(errno { try strict.protect(at: base + 20 * page, length: page, .all) } == .noMemory)
    try strict.unmap(at: base, length: 16 * page)
    try strict.protect(at: base + 20 * page, length: 9 * page, .all)
    #expect(strict.usage.promisedPages == 9)
    strict.checkInvariants()
  }
}

#if RANGELAND_CHECKS
  @Suite struct StackRaceTests {
    /// What an operation does while a stack at pages 600 to 616 grows down to page 590.
    private enum Beside: CaseIterable {
      /// Maps in the first page of the gap below the new start, and one below.
      case mapInGap, mapBelowGap
      /// Maps a page that the stack grows by.
      case mapInGrowth
      case protectStack, touchStack, touchOther

      func waits(_ policy: LockPolicy) -> Bool {
        switch policy {
        case .semaphore, .wholeRange: true
        case .ranged: self == .mapInGap || self == .mapInGrowth
        // The stack's word is locked, another's is not.
        case .perVMA: self != .touchOther
        }
      }
    }

    @Test(arguments: LockPolicy.allCases)
    func `R-1 a stack that grows keeps out who works where it grows and in the gap below`(
      _ policy: LockPolicy
    ) throws {
      for beside in Beside.allCases {
        let space = try makeSpace(policy, statistics: true)
        _ = try space.map(
          length: 16 * page, at: .fixed(base + 600 * page), protection: [.read, .write],
          options: .growsDown)
        try mapPages(space, 700, 4)
        try space.store(UInt8(1), at: base + 610 * page)
        try space.store(UInt8(1), at: base + 701 * page)
        let waited = withWatchdog(seconds: 60, "\(policy) \(beside)") {
          space.park.arm(.growStack)
          let one = TestThread { try! space.store(UInt8(2), at: base + 590 * page) }
          space.park.waitUntilOccupied()
          let isDone = Flag()
          let two = TestThread {
            switch beside {
            case .mapInGap: try! mapPages(space, 590 - 256, 1, .read)
            case .mapBelowGap: try! mapPages(space, 589 - 256, 1, .read)
            case .mapInGrowth: try! mapPages(space, 595, 1, .read)
            case .protectStack: try! space.protect(at: base + 612 * page, length: page, .read)
            case .touchStack: try! space.fault(at: base + 611 * page, .write)
            case .touchOther: try! space.fault(at: base + 702 * page, .write)
            }
            isDone.raise()
          }
          while !isDone.isRaised && space.waitingRequests == 0 { rl_yield() }
          let waited = !isDone.isRaised
          space.park.letGo()
          one.join()
          two.join()
          return waited
        }
        #expect(waited == beside.waits(policy), "\(beside)")
        #expect(space.usage.stackPages == 26 - (beside == .mapInGrowth ? 1 : 0))
        space.checkInvariants()
      }
    }
  }
#endif
