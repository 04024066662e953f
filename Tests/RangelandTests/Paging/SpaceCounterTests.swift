// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

@Suite struct SpaceCounterTests {
  @Test func `a charge is refused exactly when it would exceed the limit`() {
    let memory = try! PhysicalMemory(frameLimit: 1)
    let context = memory.reclaimer.context()
    let counters = SpaceCounters.make()!
    defer { counters.destroy() }
    counters.setLimit(.mapCount, 1000)
    #expect(counters.charge(.mapCount, 999, context))
    #expect(!counters.charge(.mapCount, 2, context))
    #expect(counters.charge(.mapCount, 1, context))
    #expect(!counters.charge(.mapCount, 1, context))
    #expect(counters.value(.mapCount) == 1000)
    counters.uncharge(.mapCount, 500, context)
    #expect(counters.value(.mapCount) == 500)
    counters.setLimit(.mapCount, 400)
    #expect(counters.value(.mapCount) == 500 && !counters.charge(.mapCount, 1, context))
    counters.uncharge(.mapCount, 101, context)
    #expect(counters.charge(.mapCount, 1, context) && !counters.charge(.mapCount, 1, context))
    counters.setLimit(.mapCount, SpaceCounters.unlimited)
    #expect(counters.charge(.mapCount, 1 << 40, context))
    #expect(counters.value(.mapCount) == 400 + 1 << 40)
    #expect(counters.value(.totalVM) == 0)
  }

  @Test func `credit that other threads keep is recalled near the limit`() {
    let memory = try! PhysicalMemory(frameLimit: 1)
    let counters = SpaceCounters.make()!
    defer { counters.destroy() }
    counters.setLimit(.totalVM, 1_000_000)
    withWatchdog("threads that take credit") {
      runThreads(3) { _ in
        let context = memory.reclaimer.context()
        precondition(counters.charge(.totalVM, 10, context))
        counters.uncharge(.totalVM, 10, context)
      }
    }
    let context = memory.reclaimer.context()
    #expect(counters.value(.totalVM) == 0)
    #expect(counters.charge(.totalVM, 1_000_000, context))
    #expect(!counters.charge(.totalVM, 1, context))
  }

  @Test(arguments: [12, 4_000, 1_200_000])
  func `threads that fit the limit together are never refused and never exceed it`(limit: Int64) {
    let memory = try! PhysicalMemory(frameLimit: 1)
    let counters = SpaceCounters.make()!
    defer { counters.destroy() }
    let random = SeededRandom(for: "credit churn")
    let threads = 4
    let each = limit / Int64(threads)
    counters.setLimit(.totalVM, limit)
    counters.setLimit(.dataVM, limit / 2)
    let refused = Atomic<Int>(0)
    let exceeded = Atomic<Int>(0)
    let data = Atomic<Int64>(0)
    withWatchdog(seconds: 120, "credit churn") {
      runThreads(threads) { me in
        var random = random.fork(me)
        let context = memory.reclaimer.context()
        var mine: Int64 = 0
        for _ in 0..<20_000 {
          let amount = 1 + Int64(random.below(UInt64(each)))
          if mine + amount <= each {
            if counters.charge(.totalVM, amount, context) {
              mine += amount
            } else {
              refused.add(1, ordering: .relaxed)
            }
          } else {
            counters.uncharge(.totalVM, mine, context)
            mine = 0
          }
          // The threads together may want more than this limit.
          if counters.charge(.dataVM, amount, context) {
            if data.add(amount, ordering: .sequentiallyConsistent).newValue > limit / 2 {
              exceeded.add(1, ordering: .relaxed)
            }
            data.subtract(amount, ordering: .sequentiallyConsistent)
            counters.uncharge(.dataVM, amount, context)
          }
        }
        counters.uncharge(.totalVM, mine, context)
      }
    }
    #expect(refused.load(ordering: .relaxed) == 0)
    #expect(exceeded.load(ordering: .relaxed) == 0)
    #expect(counters.value(.totalVM) == 0 && counters.value(.dataVM) == 0)
  }

  @Test func `resident counters are exact when nothing runs, and the high-water mark is the peak`()
  {
    let memory = try! PhysicalMemory(frameLimit: 1)
    let context = memory.reclaimer.context()
    let counters = SpaceCounters.make()!
    defer { counters.destroy() }
    counters.add(.rssAnonymous, 100, context)
    counters.add(.rssFile, 16, context)
    #expect(counters.rss == 116 && counters.highWaterRSS == 116)
    counters.noteHighWater(context)
    counters.add(.rssAnonymous, -60, context)
    #expect(counters.rss == 56 && counters.highWaterRSS == 116)
    withWatchdog("threads that count") {
      runThreads(4) { me in
        let context = memory.reclaimer.context()
        for _ in 0..<10_000 { counters.add(.rssSharedMemory, me % 2 == 0 ? 3 : -2, context) }
      }
    }
    let high = counters.highWaterRSS
    #expect((20_056...60_056 + 4 * SpaceCounters.mostUntold).contains(high), "\(high)")
    #expect(counters.value(.rssSharedMemory) == 20_000)
    #expect(counters.value(.rssAnonymous) == 40 && counters.value(.rssFile) == 16)
  }
}
