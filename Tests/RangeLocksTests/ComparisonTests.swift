// SPDX-License-Identifier: Apache-2.0
//
// The locks that are there for comparison have to be right too, or the comparison is worth nothing.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct ComparisonTests {
    final class TicketBox: @unchecked Sendable {
      // Sendable: `count` is protected by `lock`.
      let lock = TicketLock()
      var count = 0
    }

    @Test func `A ticket lock excludes under stress`() {
      withWatchdog("ticket lock") {
        let box = TicketBox()
        runThreads(3) { thread in
          for round in 0..<2000 {
            if (round + thread) % 5 == 0 {
              while !box.lock.tryLock() { rl_yield() }
            } else {
              box.lock.lock()
            }
            box.count += 1
            box.lock.unlock()
          }
        }
        #expect(box.count == 6000)
        let isFree = box.lock.tryLock()
        #expect(isFree)
        let isFreeAgain = box.lock.tryLock()
        #expect(!isFreeAgain)
      }
    }

    @Test func `An interval tree lock serves conflicting requests in order`() {
      withWatchdog("interval tree order") {
        let lock = IntervalTreeLock(pool: testPool)
        let journal = Journal()
        let held = lock.lock(over: KeyRange(0...9), .read)
        let writer = TestThread {
          let hold = lock.lock(over: KeyRange(5...20), .write)
          journal.note("writer")
          hold.release()
        }
        waitUntil { lock.waiterCount == 1 }
        let reader = TestThread {
          let hold = lock.lock(over: KeyRange(9...9), .read)
          journal.note("reader")
          hold.release()
        }
        waitUntil { lock.waiterCount == 2 }
        let other = lock.tryLock(over: KeyRange(21...), .write)
        let granted = other != nil
        #expect(granted)
        other?.release()
        let refused = lock.tryLock(over: KeyRange(20...20), .read) == nil
        #expect(refused)
        #expect(journal.all.isEmpty)
        held.release()
        writer.join()
        reader.join()
        #expect(journal.all == ["writer", "reader"])
      }
    }

    @Test func `An interval tree lock excludes under stress`() {
      let seeds = SeededRandom(for: "interval tree lock")
      let before = testPool.blocksInUse
      withWatchdog(seconds: 120, "interval tree lock, SEED=\(seeds.seed)") {
        let lock = IntervalTreeLock(pool: testPool)
        let owners = OwnerWords(256)
        runThreads(4) { thread in
          var random = seeds.fork(thread)
          for _ in 0..<Int(20_000 * stressScale) {
            let first = random.below(256)
            let last = min(255, first + random.below(random.chance(10) ? 256 : 4))
            let mode: LockMode = random.chance(50) ? .write : .read
            let range = KeyRange(first...last)
            let hold: IntervalTreeHold? =
              random.chance(30) ? lock.tryLock(over: range, mode) : lock.lock(over: range, mode)
            guard let hold else { continue }
            owners.enter(Int(first)...Int(last), mode, seed: seeds.seed)
            if random.chance(5) { rl_yield() }
            owners.leave(Int(first)...Int(last), mode)
            hold.release()
          }
        }
        #expect(owners.isQuiet)
        #expect(lock.waiterCount == 0)
      }
      #expect(testPool.blocksInUse == before)
    }
  }
}
