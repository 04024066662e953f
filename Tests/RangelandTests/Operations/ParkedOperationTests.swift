// SPDX-License-Identifier: Apache-2.0
//
// R-1, F-3, F-4: what an operation that stands inside its range phase keeps from running.

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

/// The operations that the matrix knows.
private enum Probe: String, CaseIterable, Sendable {
  case map, unmap, protect, fault, dontNeed

  var kind: OperationKind {
    switch self {
    case .map: .map
    case .unmap: .unmap
    case .protect: .protect
    case .fault: .fault
    case .dontNeed: .dontNeed
    }
  }

  /// Whether it locks its pages for writing (acceptance table, section 9).
  var writes: Bool { self == .map || self == .unmap || self == .protect }

  /// Runs it on the page at `address`, which is mapped.
  func run(_ space: AddressSpace, _ address: Address) {
    do {
      switch self {
      case .map:
        _ = try space.map(length: page, at: .fixed(address), protection: [.read, .write])
      case .unmap: try space.unmap(at: address, length: page)
      case .protect: try space.protect(at: address, length: page, .read)
      case .fault: try space.fault(at: address, .read)
      case .dontNeed: try space.dontNeed(at: address, length: page)
      }
    } catch { fatalError("\(self): \(error)") }
  }
}

#if RANGELAND_CHECKS
  @Suite struct ParkedOperationRaceTests {
    /// Whether `second` on page `to` has to wait while `first` stands in its range phase on page 0.
    private func waits(
      _ policy: LockPolicy, _ first: Probe, _ second: Probe, sameVMA: Bool, overlapping: Bool
    ) throws -> Bool {
      let space = try makeSpace(policy, statistics: true)
      try mapPages(space, 0, 4)
      // Distinct rights keep the second mapping a VMA of its own.
      if !sameVMA { try mapPages(space, 8, 4, [.read, .write, .execute]) }
      // First faults of a VMA take the semaphore under `.perVMA`; the matrix is about later ones.
      try space.store(UInt8(1), at: base + 3 * page)
      if !sameVMA { try space.store(UInt8(1), at: base + 11 * page) }
      let target = overlapping ? base : (sameVMA ? base + 2 * page : base + 8 * page)
      return withWatchdog(seconds: 60, "\(policy) \(first) \(second)") {
        space.park.arm(first.kind)
        let one = TestThread { first.run(space, base) }
        space.park.waitUntilOccupied()
        let isDone = Flag()
        let two = TestThread {
          second.run(space, target)
          isDone.raise()
        }
        // Either it comes through, or the ledger shows it waiting.
        while !isDone.isRaised && space.waitingRequests == 0 { rl_cpu_relax() }
        let waited = !isDone.isRaised
        space.park.letGo()
        one.join()
        two.join()
        return waited
      }
    }

    @Test(arguments: Probe.allCases, Probe.allCases)
    fileprivate func `R-1 ranged operations wait exactly for overlapping ones`(
      _ first: Probe, _ second: Probe
    ) throws {
      // An unmapped page cannot be faulted or protected afterwards: such pairs are not run overlapping.
      let runnable = first != .unmap || second == .map || second == .unmap
      #expect(try !waits(.ranged, first, second, sameVMA: false, overlapping: false))
      #expect(try !waits(.ranged, first, second, sameVMA: true, overlapping: false))
      // `protect` takes the right to read nothing away, so the second one finds what it needs.
      if runnable {
        #expect(
          try waits(.ranged, first, second, sameVMA: true, overlapping: true)
            == (first.writes || second.writes))
      }
    }

    @Test(arguments: [LockPolicy.semaphore, .wholeRange], Probe.allCases)
    fileprivate func `under one lock every writer makes everybody wait`(
      _ policy: LockPolicy, _ second: Probe
    ) throws {
      #expect(try waits(policy, .protect, second, sameVMA: false, overlapping: false))
      #expect(
        try waits(policy, .fault, second, sameVMA: false, overlapping: false) == second.writes)
    }

    @Test(arguments: [Probe.fault, .dontNeed])
    fileprivate func `per VMA, faults wait for a writer of their own VMA only`(_ second: Probe)
      throws
    {
      #expect(try !waits(.perVMA, .protect, second, sameVMA: false, overlapping: false))
      #expect(try waits(.perVMA, .protect, second, sameVMA: true, overlapping: false))
      #expect(try waits(.perVMA, .protect, second, sameVMA: true, overlapping: true))
      #expect(try waits(.perVMA, .fault, .protect, sameVMA: true, overlapping: false))
      #expect(try !waits(.perVMA, .fault, .protect, sameVMA: false, overlapping: false))
    }

    @Test func `F-3 a fault is not delayed by a writer elsewhere, F-4 but by one on its page`()
      throws
    {
      #expect(try !waits(.ranged, .map, .fault, sameVMA: false, overlapping: false))
      #expect(try waits(.ranged, .map, .fault, sameVMA: true, overlapping: true))
    }

    @Test func `waits under the semaphore are false when the ranges are disjoint`() throws {
      for (overlapping, expected) in [(false, 1), (true, 0)] as [(Bool, UInt64)] {
        let space = try makeSpace(.semaphore, statistics: true)
        try mapPages(space, 0, 8)
        space.park.arm(.protect)
        try withWatchdog(seconds: 60, "false waits") {
          let one = TestThread { Probe.protect.run(space, base) }
          space.park.waitUntilOccupied()
          let two = TestThread { Probe.protect.run(space, overlapping ? base : base + 4 * page) }
          while space.waitingRequests == 0 { rl_cpu_relax() }
          space.park.letGo()
          one.join()
          two.join()
          let statistics = try #require(space.lockStatistics)
          #expect(statistics.waits == 1)
          #expect(statistics.falseWaits == expected)
          #expect(
            statistics.blocked.contains { $0.operation == .protect && $0.blocker == .protect })
          #expect((statistics.falseWaitSeconds == statistics.waitSeconds) == !overlapping)
        }
      }
    }

    @Test func `a mapping without an address is classified when its range is known`() throws {
      let space = try makeSpace(.semaphore, statistics: true)
      try mapPages(space, 0, 8)
      space.park.arm(.protect)
      try withWatchdog(seconds: 60, "late classification") {
        let one = TestThread { Probe.protect.run(space, base) }
        space.park.waitUntilOccupied()
        let two = TestThread { _ = try! space.map(length: page, protection: .read) }
        while space.waitingRequests == 0 { rl_cpu_relax() }
        space.park.letGo()
        one.join()
        two.join()
        let statistics = try #require(space.lockStatistics)
        #expect(statistics.waits == 1)
        #expect(statistics.falseWaits == 1)
        #expect(statistics.unclassifiedWaits == 0)
      }
    }
  }
#endif

/// A word that one thread raises and others watch.
final class Flag: Sendable {
  private let word = Atomic<Bool>(false)
  var isRaised: Bool { word.load(ordering: .acquiring) }
  func raise() { word.store(true, ordering: .releasing) }
}
