// SPDX-License-Identifier: Apache-2.0
//
// C15: brk.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct BreakTests {
  /// A space whose heap begins in the middle of page 0.
  private func makeHeap(_ policy: LockPolicy) throws -> (AddressSpace, Address) {
    let space = try makeSpace(policy)
    let start = base + 0x123
    space.heapStart = start
    return (space, start)
  }

  @Test(arguments: LockPolicy.allCases)
  func `the break goes up and down, to the byte`(_ policy: LockPolicy) throws {
    let (space, start) = try makeHeap(policy)
    #expect(space.programBreak == start)
    #expect(space.setBreak(to: 0) == start)
    #expect(space.setBreak(to: start - 1) == start)
    // In the first page already: only the number.
    #expect(space.setBreak(to: base + page) == base + page)
    #expect(space.setBreak(to: base + 4 * page + 5) == base + 4 * page + 5)
    #expect(layout(space) == ["1..<5 rw-p"])
    try space.store(UInt8(9), at: base + 4 * page)
    // It grows by itself, and merges.
    #expect(space.setBreak(to: base + 9 * page) == base + 9 * page)
    #expect(layout(space) == ["1..<9 rw-p"])
    #expect(space.usage.dataPages == 8 && space.usage.promisedPages == 8)
    #expect(space.setBreak(to: base + 2 * page) == base + 2 * page)
    #expect(layout(space) == ["1..<2 rw-p"])
    #expect(space.usage.residentAnonymousPages == 0)
    #expect(refusal { _ = try space.load(UInt8.self, at: base + 4 * page) } == .notMapped)
    #expect(space.setBreak(to: start) == start)
    #expect(layout(space).isEmpty)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `one page stays free above the heap, and the gap below a stack`(
    _ policy: LockPolicy
  ) throws {
    let (space, start) = try makeHeap(policy)
    try mapPages(space, 20, 1, .read)
    #expect(space.setBreak(to: base + 20 * page) == start)
    #expect(space.setBreak(to: base + 19 * page + 1) == start)
    #expect(space.setBreak(to: base + 19 * page) == base + 19 * page)
    #expect(space.setBreak(to: base + 30 * page) == base + 19 * page)
    try space.unmap(at: base + 20 * page, length: page)
    _ = try space.map(
      length: page, at: .fixed(base + 600 * page), protection: [.read, .write], options: .growsDown)
    #expect(space.setBreak(to: base + 344 * page) == base + 19 * page)
    #expect(space.setBreak(to: base + 343 * page) == base + 343 * page)
    // Who else stands in the heap, and what was taken out of it.
    try space.unmap(at: base, length: 400 * page)
    #expect(space.setBreak(to: base + 10 * page) == base + 343 * page)
    try mapPages(space, 100, 1, .read)
    #expect(space.setBreak(to: base + 10 * page) == base + 10 * page)
    #expect(layout(space) == ["600..<601 rw-p"])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `rights changed inside the heap do not stop the break (LTP brk02)`(
    _ policy: LockPolicy
  ) throws {
    let (space, start) = try makeHeap(policy)
    space.setBreak(to: base + 8 * page)
    try space.protect(at: base + 4 * page, length: page, .all)
    #expect(layout(space).count == 3)
    #expect(space.setBreak(to: start) == start)
    #expect(layout(space).isEmpty)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a break that a seal refuses stays where it was`(_ policy: LockPolicy) throws {
    let (space, start) = try makeHeap(policy)
    space.setBreak(to: base + 8 * page)
    try space.seal(at: base + 4 * page, length: page)
    #expect(space.setBreak(to: start) == base + 8 * page)
    #expect(space.programBreak == base + 8 * page)
    #expect(space.setBreak(to: base + 5 * page) == base + 5 * page)
    #expect(layout(space) == ["1..<4 rw-p", "4..<5 rw-p"])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `limits refuse a break without an error`(_ policy: LockPolicy) throws {
    let (space, start) = try makeHeap(policy)
    // To the byte, from the heap's start.
    space.limits.data = 4 * page
    #expect(space.setBreak(to: start + 4 * page + 1) == start)
    #expect(space.setBreak(to: start + 4 * page) == start + 4 * page)
    space.limits = Limits(addressSpace: 6 * page)
    #expect(space.setBreak(to: base + 8 * page) == start + 4 * page)
    #expect(space.setBreak(to: base + 7 * page) == base + 7 * page)
    space.limits = Limits(overcommit: .strict(limit: 8 * page))
    #expect(space.setBreak(to: base + 9 * page) == base + 7 * page)
    #expect(space.setBreak(to: base + 8 * page) == base + 8 * page)
    let other = try makeSpace(policy)
    #expect(other.setBreak(to: base) == 0)
    #expect(other.systemCall(.brk, LinuxArguments(base)) == 0)
    #expect(space.systemCall(.brk, LinuxArguments(0)) == Int(base + 8 * page))
    space.checkInvariants()
  }
}

@Suite struct BreakRaceTests {
  @Test(arguments: LockPolicy.allCases)
  func `breaks at the same time are one after the other`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    space.heapStart = base
    let random = SeededRandom(for: "breaks")
    withWatchdog(seconds: 120, "breaks") {
      runThreads(4) { me in
        var random = random.fork(me)
        for _ in 0..<1_000 {
          let wanted = base + random.below(64) * page
          let got = space.setBreak(to: wanted)
          precondition(got == wanted)
        }
      }
    }
    let end = try #require(space.programBreak)
    #expect(space.usage.virtualPages == Int((end - base) / page))
    #expect(space.usage.dataPages == Int((end - base) / page))
    space.checkInvariants()
  }
}
