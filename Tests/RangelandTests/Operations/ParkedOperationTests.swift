// SPDX-License-Identifier: Apache-2.0
//
// R-1, F-3, F-4: what an operation that stands inside its range phase keeps from running.

import CRangeland
import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

private let probePage = SpecialMapping(name: "[probe]", content: .bytes([1]))

/// The operations that the matrix knows.
private enum Probe: String, CaseIterable, Sendable {
  case map, mapAnywhere, unmap, protect, fault, dontNeed, substitute, substituteUnmapping
  case insertSpecial, seal, residency, remapFrom, remapTo, setPolicy, setAdvice, free, installGuard
  case populate, lockMemory, unlockMemory, lockAll, setBreak, limits, fork

  var kind: OperationKind {
    switch self {
    case .map, .mapAnywhere: .map
    case .unmap: .unmap
    case .protect: .protect
    case .fault: .fault
    case .dontNeed: .dontNeed
    case .substitute, .substituteUnmapping: .substitute
    case .insertSpecial: .insertSpecial
    case .seal: .seal
    case .setPolicy: .setPolicy
    case .residency: .residency
    case .remapFrom, .remapTo: .remap
    case .setAdvice: .setAdvice
    case .free, .installGuard: .advise
    case .populate: .populate
    case .fork: .fork
    case .lockMemory, .unlockMemory, .lockAll: .lockMemory
    case .setBreak: .setBreak
    case .limits: .configure
    }
  }

  /// Whether it takes the lock of the space at all.
  var takesLock: Bool { self != .limits }

  /// Whether it locks the whole space.
  var isWhole: Bool { self == .lockAll || self == .fork }

  /// Whether it locks its pages for writing (acceptance table, section 9).
  var writes: Bool {
    ![.fault, .dontNeed, .residency, .free, .installGuard, .populate].contains(self)
  }

  /// Whether it takes the semaphore under `.perVMA`: all but those for which the word of a VMA is enough.
  var takesSemaphore: Bool { self != .fault && self != .dontNeed && self != .free }

  /// Whether it works on a page that it is given.
  var hasTarget: Bool { self != .mapAnywhere && self != .fork }

  /// Runs it on the page at `address`, which is mapped unless `mayFail`.
  func run(_ space: AddressSpace, _ address: Address, mayFail: Bool = false) {
    let range = AddressRange(pageOf: address)
    do {
      switch self {
      case .map:
        _ = try space.map(length: page, at: .fixed(address), protection: [.read, .write])
      case .mapAnywhere: _ = try space.map(length: page, protection: .read)
      case .unmap: try space.unmap(at: address, length: page)
      case .protect: try space.protect(at: address, length: page, .read)
      case .fault: try space.fault(at: address, .read)
      case .dontNeed: try space.dontNeed(at: address, length: page)
      case .substitute:
        try space.substituteMapping(range, protection: .read, sharing: .private, file: 1)
      case .substituteUnmapping: try space.substituteUnmapping(range)
      case .setPolicy:
        do throws(Errno) {
          try space.setPolicy(at: address, length: page, MemoryPolicy(.bind, nodes: 1))
        } catch {
          precondition(error == .badAddress && mayFail)
        }
      case .seal: try space.seal(at: address, length: page)
      case .residency: _ = try space.residency(at: address, length: page)
      case .remapFrom:
        // To a place of its own for each page, far from all others.
        _ = try space.remap(
          at: address, length: page, to: page, .fixed(address + (1 << 40)))
      case .remapTo:
        let source = address + (2 << 40)
        _ = try space.map(length: page, at: .fixed(source), protection: .read)
        _ = try space.remap(at: source, length: page, to: page, .fixed(address))
      case .setAdvice: try space.advise(.dontFork, at: address, length: page)
      case .free: try space.advise(.free, at: address, length: page)
      case .installGuard: try space.advise(.installGuard, at: address, length: page)
      case .populate: try space.advise(.populateRead, at: address, length: page)
      case .fork: _ = try space.fork()
      case .lockMemory: try space.lockMemory(at: address, length: page)
      case .unlockMemory: try space.unlockMemory(at: address, length: page)
      case .lockAll: try space.lockAllMemory([.current, .onFault])
      case .setBreak:
        // A heap of no length: it looks at the page above it.
        space.heapStart = address
        space.setBreak(to: address)
      case .limits: space.limits = Limits(mappingCount: 1000)
      case .insertSpecial:
        do throws(Errno) {
          _ = try space.insert(probePage, length: page, at: .fixed(address), protection: .read)
        } catch {
          // Refused under the lock where something is mapped, which is what counts here.
          precondition(error == .noMemory)
        }
      }
    } catch let error as Errno where mayFail && error == .noMemory {
    } catch let error as Errno
      where mayFail && (error == .badAddress || error == .invalidArgument)
    {
      // Guarded, or made a file's, by the other one.
    } catch let error as Errno where error == .notPermitted {
      // Sealed by the other one: found out under the lock.
    } catch let fault as AccessFault where mayFail && fault.reason == .notMapped {
    } catch { fatalError("\(self): \(error)") }
  }
}

#if RANGELAND_CHECKS
  /// Where the second operation works, seen from the first.
  private enum Distance: String, CaseIterable {
    case samePage, sameVMA, otherVMA
    /// On the page before or behind, which is another VMA's.
    case below, above

    var isTouching: Bool { self == .below || self == .above }

    /// The pages that the first and the second work on.
    var pages: (first: UInt64, second: UInt64) {
      switch self {
      case .samePage: (4, 4)
      case .sameVMA: (4, 6)
      case .otherVMA: (4, 16)
      case .below: (4, 3)
      case .above: (7, 8)
      }
    }

    /// Whether two operations exclude each other under a policy: the table of the tests.
    func excludes(_ first: Probe, _ second: Probe, _ policy: LockPolicy) -> Bool {
      if !second.takesLock { return false }
      if !first.writes && !second.writes { return false }
      if first.isWhole || second.isWhole { return true }
      switch policy {
      case .semaphore, .wholeRange: return true
      case .ranged: return self == .samePage && first.hasTarget && second.hasTarget
      case .perVMA:
        // Writers share the semaphore; a fault needs the word of its VMA, which writers of that VMA hold, and of
        // one that it touches, because they may merge.
        if first.takesSemaphore && second.takesSemaphore { return true }
        return self != .otherVMA && first.hasTarget && second.hasTarget
      }
    }
  }

  @Suite struct ParkedOperationRaceTests {
    /// Whether `second` has to wait while `first` stands in its range phase.
    private func waits(
      _ policy: LockPolicy, _ first: Probe, _ second: Probe, _ distance: Distance
    ) throws -> Bool {
      let space = try makeSpace(policy, statistics: true)
      // Distinct rights keep neighbours VMAs of their own.
      try mapPages(space, 0, 4, [.read, .write, .execute])
      try mapPages(space, 4, 4)
      try mapPages(space, 8, 4, [.read, .write, .execute])
      try mapPages(space, 16, 4, [.read, .write, .execute])
      // First faults of a VMA take the semaphore under `.perVMA`; the matrix is about later ones.
      for i in [0, 5, 11, 19] as [UInt64] { try space.store(UInt8(1), at: base + i * page) }
      let firstPage = base + distance.pages.first * page
      let secondPage = base + distance.pages.second * page
      // What is locked refuses advice.
      let mayFail = distance == .samePage || first.isWhole || second.isWhole
      return withWatchdog(seconds: 60, "\(policy) \(first) \(second) \(distance)") {
        space.park.arm(first.kind)
        let one = TestThread { first.run(space, firstPage, mayFail: mayFail) }
        space.park.waitUntilOccupied()
        let isDone = Flag()
        let two = TestThread {
          second.run(space, secondPage, mayFail: mayFail)
          isDone.raise()
        }
        // Either it comes through, or the ledger shows it waiting.
        while !isDone.isRaised && space.waitingRequests == 0 { rl_yield() }
        let waited = !isDone.isRaised
        space.park.letGo()
        one.join()
        two.join()
        space.checkInvariants()
        return waited
      }
    }

    /// All pairs, all distances, all policies. F-3 and F-4 are the column of `fault`.
    @Test(arguments: LockPolicy.allCases, Probe.allCases.filter(\.takesLock))
    fileprivate func `R-1 an operation that stands in its range keeps out whom its policy says`(
      _ policy: LockPolicy, _ first: Probe
    ) throws {
      for second in Probe.allCases {
        for distance in Distance.allCases {
          // Where the range is ignored, neighbours are like any other.
          if (policy == .semaphore || policy == .wholeRange) && distance.isTouching { continue }
          let expected = distance.excludes(first, second, policy)
          #expect(
            try waits(policy, first, second, distance) == expected,
            "\(second) beside \(first), \(distance)")
        }
      }
    }

    @Test(arguments: LockPolicy.allCases)
    func `C1 a mapping waits for a gap whose range is held, and shows nothing meanwhile`(
      _ policy: LockPolicy
    ) throws {
      // The gap is reserved while its range is held by somebody who unmapped it: the mapping waits for it
      // (`.ranged`), or waited for the whole lock before it looked.
      let space = try makeSpace(policy, statistics: true)
      let taken = try space.map(length: page, protection: .read)
      let below = try space.map(length: page, protection: .write)
      try withWatchdog(seconds: 60, "\(policy) placement") {
        space.park.arm(.protect)
        // `protect` fails on a hole, but holds the range while it stands there.
        try space.unmap(at: taken, length: page)
        let one = TestThread { try? space.protect(at: taken, length: page, .read) }
        space.park.waitUntilOccupied()
        let two = TestThread {
          guard let at = try? space.map(length: page, protection: .execute), at == taken else {
            fatalError("the freed gap was not used")
          }
        }
        while space.waitingRequests == 0 { rl_yield() }
        // Neither the reservation nor a hole that never was is seen by anybody.
        #expect(space.mappings().map(\.range.start) == [below])
        #expect(space.usage.mappings == 1)
        space.park.letGo()
        one.join()
        two.join()
      }
      #expect(space.mappings().map(\.range.start) == [below, taken])
    }

    @Test func `C1 a fixed mapping takes a reserved gap, and its owner searches again`() throws {
      let space = try makeSpace(.ranged, statistics: true)
      let taken = try space.map(length: 2 * page, protection: .read)
      try space.unmap(at: taken, length: 2 * page)
      let chosen = Flag()
      withWatchdog(seconds: 60, "reservation") {
        space.park.arm(.map)
        let one = TestThread {
          _ = try! space.map(length: page, at: .fixed(taken + page), protection: .write)
        }
        space.park.waitUntilOccupied()
        // Reserves both pages, of which one is held.
        let two = TestThread {
          let at = try! space.map(length: 2 * page, protection: .execute)
          if at != taken - page { fatalError("\(String(at, radix: 16))") }
          chosen.raise()
        }
        while space.waitingRequests == 0 { rl_yield() }
        if chosen.isRaised { fatalError("the mapping did not wait") }
        space.park.letGo()
        one.join()
        two.join()
      }
      space.checkInvariants()
      #expect(
        space.mappings().map(\.range) == [
          AddressRange(start: taken - page, end: taken + page),
          AddressRange(start: taken + page, end: taken + 2 * page),
        ])
    }

    @Test(arguments: [Probe.fault, .dontNeed], [Probe.protect, .unmap, .map])
    fileprivate func `a reader that gets the word of a VMA that has been replaced looks again`(
      _ reader: Probe, _ writer: Probe
    ) throws {
      let space = try makeSpace(.perVMA, statistics: true)
      try mapPages(space, 0, 4)
      try space.store(UInt8(1), at: base + 3 * page)
      withWatchdog(seconds: 60, "\(reader) \(writer)") {
        space.parkBeforeWord.arm(reader.kind)
        space.park.arm(reader.kind)
        let one = TestThread { reader.run(space, base, mayFail: true) }
        space.parkBeforeWord.waitUntilOccupied()
        // The VMA is replaced, and its word is free again.
        writer.run(space, base)
        if writer == .unmap { try! mapPages(space, 0, 1) }
        space.parkBeforeWord.letGo()
        space.park.waitUntilOccupied()
        // The reader stands in its range now: a writer of its page has to wait for it.
        let two = TestThread { Probe.protect.run(space, base) }
        while space.waitingRequests == 0 {
          if space.mapping(at: base)?.protection == .read && writer != .protect {
            fatalError("a writer did not wait for a reader with the word of a dead VMA")
          }
          rl_yield()
        }
        space.park.letGo()
        one.join()
        two.join()
      }
      space.checkInvariants()
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
          while space.waitingRequests == 0 { rl_yield() }
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
        while space.waitingRequests == 0 { rl_yield() }
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
