// SPDX-License-Identifier: Apache-2.0
//
// C19: when the k-th allocation of an operation fails, for every k, the layout is what it was.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

#if RANGELAND_CHECKS
  /// An operation that needs memory, and what it throws without.
  private enum Scenario: String, CaseIterable, Sendable {
    case mapFixedInside, mapNoReplace, mapAnywhere, mapShared, mapHint, unmapMiddle, unmapSeveral
    case protectMiddle, protectEdge, protectWhole, substituteFile, firstFault, laterFault,
      sharedFault
    case remapFixed, remapInPlace, remapAnywhere, remapKeep
    case lockMiddle, unlockMiddle, lockOnFault, breakUp, breakDown

    func run(_ space: AddressSpace) throws {
      switch self {
      case .mapFixedInside: try mapPages(space, 33, 2, .read)
      case .mapNoReplace:
        _ = try space.map(
          length: page, at: .fixedNoReplace(base + 3 * page), protection: .execute)
      case .mapAnywhere: _ = try space.map(length: page, protection: [.read, .write])
      case .mapShared: try mapPages(space, 34, 1, sharing: .shared)
      case .mapHint:
        _ = try space.map(length: page, at: .hint(base + 3 * page), protection: .read)
      case .unmapMiddle: try space.unmap(at: base + 34 * page, length: page)
      case .unmapSeveral: try space.unmap(at: base + 5 * page, length: 30 * page)
      case .protectMiddle: try space.protect(at: base + 34 * page, length: page, .read)
      case .protectEdge: try space.protect(at: base + 32 * page, length: page, .read)
      case .protectWhole: try space.protect(at: base + 32 * page, length: 8 * page, .read)
      case .substituteFile:
        try space.substituteMapping(
          AddressRange(start: base + 33 * page, end: base + 35 * page), protection: .read,
          sharing: .private, file: 3, pageOffset: 9)
      case .firstFault: try space.store(UInt64(1), at: base + 50 * page)
      case .laterFault: try space.store(UInt64(1), at: base + (1 << 21))
      case .sharedFault: try space.store(UInt64(1), at: base + (2 << 21))
      case .remapFixed:
        _ = try space.remap(
          at: base + 34 * page, length: 3 * page, to: 3 * page, .fixed(base + (9 << 21) - page))
      case .remapInPlace:
        _ = try space.remap(at: base + 32 * page, length: 8 * page, to: 9 * page, .inPlace)
      case .remapAnywhere:
        _ = try space.remap(at: base + 32 * page, length: 8 * page, to: 12 * page)
      case .lockMiddle: try space.lockMemory(at: base + 34 * page, length: page)
      case .unlockMiddle: try space.unlockMemory(at: base + 521 * page, length: page)
      case .lockOnFault:
        try space.lockMemory(at: base + 33 * page, length: 2 * page, onFault: true)
      case .breakUp, .breakDown:
        let wanted = base + (self == .breakUp ? 802 : 798) * page
        // A break that cannot move says so by staying.
        if space.setBreak(to: wanted) != wanted { throw Errno.noMemory }
      case .remapKeep:
        _ = try space.remap(
          at: base + 32 * page, length: 8 * page, to: 8 * page, keepingSource: true)
      }
    }

    /// Crowded leaves on both sides, so that every change divides one.
    static func prepare(_ policy: LockPolicy) throws -> AddressSpace {
      let space = try makeSpace(policy)
      for i in 0..<12 as Range<UInt64> {
        try mapPages(space, 2 * i, 1, i & 1 == 0 ? .read : [.read, .write])
      }
      try mapPages(space, 32, 8)
      try space.store(UInt64(7), at: base + 36 * page)
      try space.store(UInt64(8), at: base + 34 * page)
      for i in 20..<32 as Range<UInt64> {
        try mapPages(space, 2 * i + 2, 1, i & 1 == 0 ? .read : [.read, .write])
      }
      try mapPages(space, 50, 1)
      try mapPages(space, 512, 4)
      try space.store(UInt64(9), at: base + 513 * page)
      try space.dontNeed(at: base + 513 * page, length: page)
      try mapPages(space, 1024, 4, sharing: .shared)
      try mapPages(space, 520, 4, .read)
      try space.lockMemory(at: base + 520 * page, length: 4 * page)
      space.heapStart = base + 796 * page
      space.setBreak(to: base + 800 * page)
      return space
    }
  }

  @Suite struct AllocationFailureTests {
    private struct State: Equatable {
      var mappings: [MappingInfo]
      var usage: SpaceUsage
      var first: UInt64
      var second: UInt64?

      init(_ space: AddressSpace) {
        mappings = space.mappings()
        // It differs from space to space.
        for i in mappings.indices { mappings[i].sharedObject = nil }
        usage = space.usage
        usage.peakResidentPages = 0
        first = (try? space.load(UInt64.self, at: base + 36 * page)) ?? 0
        second = try? space.load(UInt64.self, at: base + 34 * page)
      }
    }

    @Test(arguments: LockPolicy.allCases, Scenario.allCases)
    fileprivate func `the failure of any allocation leaves the layout as it was`(
      _ policy: LockPolicy, _ scenario: Scenario
    ) throws {
      let reference = try Scenario.prepare(policy)
      try scenario.run(reference)
      let expected = State(reference)
      var failures = 0
      // More allocations than any of them makes.
      for k in 0..<400 {
        let space = try Scenario.prepare(policy)
        let before = State(space)
        let reclaimer = space.memory.reclaimer
        reclaimer.failAllocation(after: k)
        var thrown: (any Error)?
        do { try scenario.run(space) } catch { thrown = error }
        let hasFailed = reclaimer.disarmFailure()
        space.checkInvariants()
        if let thrown {
          failures += 1
          #expect(hasFailed, "\(thrown) although nothing failed")
          switch thrown {
          case let error as Errno: #expect(error == .noMemory)
          case let fault as AccessFault: #expect(fault.reason == .outOfMemory)
          default: Issue.record("\(thrown)")
          }
          #expect(State(space) == before, "allocation \(k)")
          // And nothing stands in the way of a second try.
          try scenario.run(space)
        }
        #expect(State(space) == expected, "allocation \(k)")
        space.checkInvariants()
        try space.unmap(at: 0, length: Address.spaceEnd)
        #expect(space.usage.virtualPages == 0 && space.usage.residentAnonymousPages == 0)
        #expect(space.memory.framesInUse <= 1)
        if !hasFailed { break }
        #expect(k < 399, "more allocations than the loop tries")
      }
      #expect(failures > 0)
    }

    @Test(arguments: LockPolicy.allCases)
    func `protect without memory keeps what it has changed, VMA by VMA`(_ policy: LockPolicy) throws
    {
      // As mprotect does: every state on the way is one where some first VMAs are changed.
      var states: [[MappingInfo]] = []
      for done in 0...12 as ClosedRange<UInt64> {
        let space = try Self.stripes(policy)
        if done > 0 { try space.protect(at: base, length: done * page, .execute) }
        states.append(space.mappings())
      }
      var isDone = false
      for k in 0..<400 where !isDone {
        let space = try Self.stripes(policy)
        space.memory.reclaimer.failAllocation(after: k)
        let error = errno { try space.protect(at: base, length: 12 * page, .execute) }
        isDone = !space.memory.reclaimer.disarmFailure()
        #expect(error == (isDone ? nil : .noMemory))
        #expect(states.contains(space.mappings()))
        space.checkInvariants()
        try space.protect(at: base, length: 12 * page, .execute)
        #expect(space.mappings() == states.last)
      }
      #expect(isDone)
    }

    private static func stripes(_ policy: LockPolicy) throws -> AddressSpace {
      let space = try makeSpace(policy)
      for i in 0..<12 as Range<UInt64> {
        try mapPages(space, i, 1, i & 1 == 0 ? .read : [.read, .write])
      }
      return space
    }
  }
#endif
