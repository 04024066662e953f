// SPDX-License-Identifier: Apache-2.0
//
// Long queues: what a waiting request costs in memory, and that each release lets go one.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct QueueTests {
    @Test(arguments: [KeyRange(3...9), KeyRange(12...20), KeyRange(12...40), .all])
    func `A queue of writers takes two blocks a writer at most, and is served in order`(
      _ range: KeyRange
    ) {
      let count = 200
      withWatchdog(seconds: 120, "a queue of \(count) writers of \(range)") {
        let lock = makeLock(.init(granuleShift: 4))
        let before = testPool.blocksInUse
        let held = Held(lock.lock(over: range, .write))
        let journal = Journal()
        var threads: [TestThread] = []
        for place in 0..<count {
          threads.append(
            TestThread {
              let hold = lock.lock(over: range, .write)
              journal.note("\(place)")
              hold.release()
            })
          // One after the other, so that their order is known.
          waitUntil { lock.waiterCount == place + 1 }
        }
        // The hold, taken over from whole-lock mode, has one block of its own.
        #expect(testPool.blocksInUse - before <= 1 + 2 * count)
        held.release()
        for thread in threads { thread.join() }
        #expect(journal.all == (0..<count).map(String.init))
        #expect(testPool.blocksInUse == before)
      }
    }

    @Test func `Many readers wait for one writer and one writer for many readers`() {
      let count = 100
      withWatchdog(seconds: 120, "\(count) readers") {
        let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: false))
        let before = testPool.blocksInUse
        let first = Held(lock.lock(over: KeyRange(0...1000), .write))
        let held = (0..<count).map { _ in TestThread { lock.lock(over: .all, .read).release() } }
        waitUntil { lock.waiterCount == count }
        first.release()
        for thread in held { thread.join() }
        let readers = (0..<count).map {
          Held(lock.lock(over: KeyRange(UInt64($0)...UInt64($0 * 7)), .read))
        }
        let journal = Journal()
        let writer = TestThread {
          let hold = lock.lock(over: KeyRange(0...2000), .write)
          journal.note("writer")
          hold.release()
        }
        waitUntil { lock.waiterCount == 1 }
        var random = SeededRandom(for: "readers that leave")
        for reader in readers.shuffled(using: &random) {
          #expect(journal.all.isEmpty, "SEED=\(random.seed)")
          reader.release()
        }
        writer.join()
        #expect(testPool.blocksInUse == before)
      }
    }

    @Test func `A whole-space waiter is passed at most so often as is said`() {
      withWatchdog(seconds: 120, "a waiter among narrow ones") {
        let lock = makeLock(.init(granuleShift: 4, fairness: .throughput))
        var passes = 0
        let journal = Journal()
        let first = Held(lock.lock(over: KeyRange(0...9), .write))
        let waiter = TestThread {
          let hold = lock.lock(over: .all, .write)
          journal.note("granted")
          hold.release()
        }
        waitUntil { lock.waiterCount == 1 }
        // The hold of another key keeps the waiter from being granted: all of these pass it.
        while let hold = lock.tryLock(over: KeyRange(100...100), .write) {
          hold.release()
          passes += 1
        }
        #expect(journal.all.isEmpty)
        #expect(passes == RangeLock.Fairness.mostPasses)
        first.release()
        waiter.join()
        #expect(journal.all == ["granted"])
      }
    }

    @Test(arguments: [KeyRange(3...9), KeyRange(12...40), .all])
    func `Requests that give up behind one hold do not pile up`(_ range: KeyRange) {
      withWatchdog(seconds: 120, "requests for \(range) that give up") {
        let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: false))
        let before = testPool.blocksInUse
        let held = Held(lock.lock(over: range, .write))
        // It stays in the queue: those that give up come and go around it.
        let waiter = TestThread { lock.lock(over: range, .write).release() }
        waitUntil { lock.waiterCount == 1 }
        for _ in 0..<5000 {
          let hold = lock.lock(over: range, .read, deadline: 1)
          if hold != nil { Issue.record("granted beside a writer") }
        }
        // Of those that gave up a stack has 127 at most, of two blocks each; behind the hold or behind the waiter.
        #expect(testPool.blocksInUse - before <= 6 + 2 * 2 * 127)
        held.release()
        waiter.join()
        #expect(testPool.blocksInUse == before)
      }
    }

    @Test func `Readers of a hot range are told, and a writer waits for them`() {
      withWatchdog(seconds: 120, "readers in stripes") {
        let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: false))
        let before = testPool.blocksInUse
        let range = KeyRange(3...5)
        // Readers that meet open the stripes.
        for _ in 0..<40 {
          let one = lock.lock(over: range, .read)
          lock.lock(over: range, .read).release()
          one.release()
        }
        var hold = lock.lock(over: range, .read)
        let (keys, mode) = (hold.range, hold.mode)
        #expect(keys == range)
        #expect(mode == .read)
        #expect(lock.holdCount == 1)
        #expect(lock.isHeld(over: range, .read))
        #expect(!lock.isFree(over: KeyRange(4...100), .write))
        #expect(lock.isFree(over: range, .read))
        let held = Held(lock.lock(over: range, .read))
        let upgraded = hold.tryUpgrade()
        #expect(!upgraded)
        hold.shrink(to: KeyRange(3...3))
        held.release()
        #expect(lock.isFree(over: KeyRange(4...5), .write))
        #expect(!lock.isFree(over: KeyRange(3...3), .write))
        let isWriter = hold.tryUpgrade()
        #expect(isWriter)
        hold.release()
        #expect(lock.holdCount == 0)
        #expect(lock.isFree(over: .all, .write))
        #expect(testPool.blocksInUse == before)
      }
    }
  }
}
