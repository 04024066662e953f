// SPDX-License-Identifier: Apache-2.0
//
// Moves beside other threads: no deadlock, no page at two places, no write lost.

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct RemapRaceTests {
  private static let rounds = 400

  /// A is moved onto B by one thread while another moves B onto A. One of them is there at any time.
  @Test(arguments: LockPolicy.allCases)
  func `C17 two threads that move A to B and B to A do not deadlock`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy, statistics: true)
    let a = base
    let b = base + (1 << 30)
    try mapPages(space, 0, 8)
    for i in 0..<8 as Range<UInt64> { try space.store(i + 1, at: a + i * page) }
    let moved = withWatchdog(seconds: 120, "\(policy) swap") {
      let counts = [Count(), Count()]
      let threads = [(a, b), (b, a)].enumerated().map { i, pair in
        TestThread {
          for _ in 0..<Self.rounds {
            do throws(Errno) {
              _ = try space.remap(
                at: pair.0, length: 8 * page, to: 8 * page, .fixed(pair.1))
              counts[i].add()
            } catch {
              // The mapping is at the other place.
              precondition(error == .badAddress, "\(error)")
            }
          }
        }
      }
      for thread in threads { thread.join() }
      return counts.map(\.value)
    }
    let mappings = space.mappings()
    #expect(mappings.count == 1)
    // Where it is follows from how often it moved each way.
    #expect(abs(moved[0] - moved[1]) <= 1)
    #expect(mappings[0].range.start == (moved[0] > moved[1] ? b : a))
    for i in 0..<8 as Range<UInt64> {
      #expect(try space.load(UInt64.self, at: mappings[0].range.start + i * page) == i + 1)
    }
    #expect(space.usage.residentAnonymousPages == 8)
    space.checkInvariants()
  }

  /// A thread stores numbers that rise while another moves the page to and fro: each store that was made is
  /// found at whichever place the page is, and none is made at a place that it has left.
  @Test(arguments: LockPolicy.allCases)
  func `P4 no write is lost, and nobody sees the old place after a move`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    let places = [base + 5 * page, base + (1 << 30)]
    try mapPages(space, 5, 1)
    try space.store(UInt64(0), at: places[0])
    withWatchdog(seconds: 120, "\(policy) stores") {
      let isDone = Flag()
      let mover = TestThread {
        for i in 0..<(2 * Self.rounds) {
          let (from, to) = (places[i % 2], places[1 - i % 2])
          _ = try! space.remap(at: from, length: page, to: page, .fixed(to))
          let seen = try? space.load(UInt64.self, at: from)
          precondition(seen == nil, "the old place can be read after the move")
        }
        isDone.raise()
      }
      let writer = TestThread {
        var last: UInt64 = 0
        var i = 0
        while !isDone.isRaised {
          i &+= 1
          let place = places[i & 1]
          do throws(AccessFault) {
            try space.store(last + 1, at: place)
            last += 1
          } catch {
            precondition(error.reason == .notMapped)
          }
          // Where the page is now it shows the last store.
          for place in places {
            do throws(AccessFault) {
              let seen = try space.load(UInt64.self, at: place)
              precondition(seen == last, "stored \(last), loaded \(seen)")
            } catch {
              precondition(error.reason == .notMapped)
            }
          }
        }
      }
      mover.join()
      writer.join()
    }
    #expect(space.usage.residentAnonymousPages == 1)
    space.checkInvariants()
  }

  /// Moves without an address beside mappings without one: nobody gets a place twice.
  @Test(arguments: LockPolicy.allCases)
  func `C1 moves and mappings choose different gaps`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    withWatchdog(seconds: 120, "\(policy) gaps") {
      let threads = (0..<4).map { number in
        TestThread {
          var generator = SystemRandomNumberGenerator()
          for round in 0..<Self.rounds {
            let value = UInt64(number) << 32 | UInt64(round)
            let pages = generator.next(upperBound: UInt64(4)) + 1
            var at = try! space.map(length: pages * page, protection: [.read, .write])
            try! space.store(value, at: at)
            at = try! space.remap(at: at, length: pages * page, to: (pages + 5) * page)
            precondition(try! space.load(UInt64.self, at: at) == value)
            at = try! space.remap(at: at, length: (pages + 5) * page, to: page)
            precondition(try! space.load(UInt64.self, at: at) == value)
            try! space.unmap(at: at, length: page)
          }
        }
      }
      for thread in threads { thread.join() }
    }
    #expect(space.mappings().isEmpty)
    #expect(space.usage.residentAnonymousPages == 0)
    space.checkInvariants()
  }
}

/// Counts what one thread does.
private final class Count: Sendable {
  private let number = Atomic<Int>(0)
  var value: Int { number.load(ordering: .relaxed) }
  func add() { number.add(1, ordering: .relaxed) }
}
