// SPDX-License-Identifier: Apache-2.0
//
// Two mappings of an object show the same page, whatever holes are punched meanwhile.

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct PunchHoleRaceTests {
  @Test(arguments: LockPolicy.allCases)
  func `what is written through one mapping is read through the other, or a hole came between`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    // Between taking pages out of the page tables and out of the object too.
    space.yieldInsideOperations()
    #if RANGELAND_TSAN
      let rounds: UInt64 = 1_000
    #else
      let rounds: UInt64 = 10_000
    #endif
    // In page tables of their own, which come and go.
    let places = [base, base + (1 << 30)]
    try mapPages(space, 0, 4, sharing: .shared)
    _ = try space.remap(at: base, length: 0, to: 4 * page, .fixed(places[1]))
    let running = Atomic<Int>(2)
    let wrong = Atomic<Int>(0)
    withWatchdog("holes, \(policy)") {
      runThreads(3) { thread in
        do {
          if thread == 2 {
            var random = SeededRandom(for: "holes")
            while running.load(ordering: .acquiring) > 0 {
              let place = places[Int(random.below(2))]
              try space.advise(.remove, at: place + random.below(4) * page, length: page)
              // Nobody sees this but the page tables.
              try space.advise(.pageOut, at: places[Int(random.below(2))], length: 4 * page)
            }
            return
          }
          // Each has two pages of its own.
          for round in 1...rounds {
            let offset = UInt64(thread) * 2 * page + round % 2 * page
            let (first, second) = (places[Int(round / 2 % 2)], places[Int(round / 2 + 1) % 2])
            try space.store(round, at: first + offset)
            let seen = try space.load(UInt64.self, at: second + offset)
            if seen != round && seen != 0 { wrong.add(1, ordering: .relaxed) }
          }
          running.subtract(1, ordering: .releasing)
        } catch {
          Issue.record("\(error)")
          running.subtract(1, ordering: .releasing)
        }
      }
    }
    #expect(wrong.load(ordering: .relaxed) == 0)
    let resident = space.usage.residentSharedPages
    #expect(resident == space.presentPages(in: .wholeSpace).count)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `a mapping that moves while holes are punched shows what the others show`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    #if RANGELAND_TSAN
      let rounds: UInt64 = 1_000
    #else
      let rounds: UInt64 = 3_000
    #endif
    try mapPages(space, 0, 4, sharing: .shared)
    let places = [base + (1 << 30), base + (2 << 30)]
    _ = try space.remap(at: base, length: 0, to: 4 * page, .fixed(places[0]))
    let running = Atomic<Bool>(true)
    let wrong = Atomic<Int>(0)
    withWatchdog("holes and moves, \(policy)") {
      runThreads(2) { thread in
        defer { running.store(false, ordering: .releasing) }
        do {
          if thread == 1 {
            var random = SeededRandom(for: "holes")
            while running.load(ordering: .acquiring) {
              try space.advise(.remove, at: base + random.below(4) * page, length: page)
            }
            return
          }
          for round in 1...rounds {
            let (old, new) = (places[Int(round + 1) & 1], places[Int(round) & 1])
            _ = try space.remap(at: old, length: 4 * page, to: 4 * page, .fixed(new))
            let offset = round % 4 * page
            try space.store(round, at: base + offset)
            let seen = try space.load(UInt64.self, at: new + offset)
            if seen != round && seen != 0 { wrong.add(1, ordering: .relaxed) }
          }
        } catch {
          Issue.record("\(error)")
        }
      }
    }
    #expect(wrong.load(ordering: .relaxed) == 0)
    #expect(space.usage.residentSharedPages == space.presentPages(in: .wholeSpace).count)
    space.checkInvariants()
  }
}
