// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import RangeLocks

/// A number that threads share.
private final class Counter: Sendable {
  let value = Atomic<Int>(0)
}

extension LockTests {
  /// Who holds and who waits.
  @Suite struct InspectionTests {
    @Test(arguments: [true, false])
    func `holds are told with range, mode and owner`(_ whole: Bool) {
      let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: whole))
      #expect(lock.requests().isEmpty)
      let wide = lock.lock(over: KeyRange(0...5000), .read)
      #expect(
        lock.requests() == [
          .init(
            range: KeyRange(0...5000), mode: .read, state: .holding,
            thread: RangeLock.currentThread)
        ])
      let narrow = lock.lock(over: KeyRange(first: .max, last: .max), .write)
      #expect(lock.requests(overlapping: KeyRange(5000...)).count == 2)
      #expect(lock.requests(overlapping: KeyRange(5001..<UInt64.max)).isEmpty)
      #expect(lock.isHeld(over: KeyRange(10...20), .read))
      #expect(!lock.isHeld(over: KeyRange(10...20), .write))
      #expect(!lock.isHeld(over: KeyRange(4000...6000), .read))
      #expect(lock.isHeld(over: KeyRange(first: .max, last: .max), .read))
      lock.assertHeld(over: KeyRange(0...0), .read)
      wide.release()
      narrow.release()
      #expect(lock.requests().isEmpty)
    }

    @Test func `a waiter is told until it is granted, and a hold of several ranges range by range`()
    {
      withWatchdog("a waiter is told") {
        let lock = makeLock(.init(granuleShift: 4))
        let first = lock.lock(over: KeyRange(0...9), .write)
        let counter = Counter()
        let waiter = TestThread {
          let hold = lock.lock(
            overAll: [
              RangeRequest(KeyRange(5...20), .write), RangeRequest(KeyRange(100...110), .read),
            ])
          #expect(counter.value.load(ordering: .acquiring) == 1)
          #expect(
            Set(lock.requests()) == [
              .init(
                range: KeyRange(5...20), mode: .write, state: .holding,
                thread: RangeLock.currentThread),
              .init(
                range: KeyRange(100...110), mode: .read, state: .holding,
                thread: RangeLock.currentThread),
            ])
          hold.release()
        }
        while !lock.requests().contains(where: { $0.state == .waiting }) {}
        #expect(lock.isHeld(over: KeyRange(0...9), .write))
        #expect(!lock.isHeld(over: KeyRange(10...20), .write))
        counter.value.store(1, ordering: .releasing)
        first.release()
        waiter.join()
        #expect(lock.requests().isEmpty)
      }
    }

    @Test(arguments: [true, false])
    func `who holds is told, also of a hold that another thread took over, and since when`(
      _ whole: Bool
    ) {
      withWatchdog("who holds") {
        let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: whole))
        let mine = Held(lock.lock(over: KeyRange(0...9), .write))
        let counter = Counter()
        let other = TestThread {
          // Finds the hold, takes it over, and stands beside it.
          let hold = lock.lock(over: KeyRange(50...59), .write)
          // Plus one: the first thread is number 0.
          counter.value.store(RangeLock.currentThread + 1, ordering: .releasing)
          waitUntil { counter.value.load(ordering: .acquiring) == -1 }
          hold.release()
        }
        waitUntil { lock.holdCount == 2 && counter.value.load(ordering: .acquiring) != 0 }
        let theirs = counter.value.load(ordering: .acquiring) - 1
        #expect(theirs != RangeLock.currentThread)
        #expect(
          Set(lock.requests()) == [
            .init(
              range: KeyRange(0...9), mode: .write, state: .holding,
              thread: RangeLock.currentThread),
            .init(range: KeyRange(50...59), mode: .write, state: .holding, thread: theirs),
          ])
        lock.setNotesTimes(true)
        let before = rl_monotonic_ns()
        let waiter = TestThread { lock.lock(over: KeyRange(5...5), .read).release() }
        waitUntil { lock.waiterCount == 1 }
        let since = lock.requests(overlapping: KeyRange(5...5)).first { $0.state == .waiting }?
          .since
        #expect(since.map { $0 >= before && $0 <= rl_monotonic_ns() } == true)
        mine.release()
        waiter.join()
        counter.value.store(-1, ordering: .releasing)
        other.join()
        let hold = lock.lock(over: KeyRange(7...7), .read)
        #expect(lock.requests().first?.since.map { $0 >= since ?? .max } == true)
        lock.setNotesTimes(false)
        hold.release()
      }
    }

    @Test func `counters tell what happened`() {
      withWatchdog("counters") {
        let lock = makeLock(.init(granuleShift: 4))
        lock.lock(over: KeyRange(0...9), .write).release()
        #expect(
          lock.counters
            == .init(
              acquisitions: 0, contended: 0, parks: 0, handOffs: 0, modeSwitches: 0,
              overtakings: 0))
        let writer = Held(lock.lock(over: KeyRange(0...9), .write))
        #expect(!lock.isFree(over: KeyRange(0...0), .read))
        #expect(lock.counters.contended == 0)
        #expect(lock.counters.modeSwitches == 1)
        // One that gives up, one that is granted: it sleeps, for nobody lets it go before it does.
        if lock.lock(over: KeyRange(0...0), .read, deadline: 1) != nil { Issue.record("granted") }
        #expect((lock.counters.contended, lock.counters.handOffs) == (1, 0))
        let parks = lock.counters.parks
        let reader = TestThread { lock.lock(over: KeyRange(5...25), .read).release() }
        waitUntil { lock.counters.parks > parks }
        // A hold that becomes a writer passes the reader that waits.
        var passing = lock.lock(over: KeyRange(20...29), .read)
        let isWriter = passing.tryUpgrade()
        #expect(isWriter)
        #expect(lock.counters.overtakings == 1)
        passing.release()
        writer.release()
        reader.join()
        #expect((lock.counters.contended, lock.counters.handOffs) == (2, 1))
        #expect(lock.counters.acquisitions == 0)
        lock.setCountsAcquisitions(true)
        lock.lock(over: KeyRange(0...9), .write).release()
        lock.lock(overAll: [.init(KeyRange(0...0), .read), .init(KeyRange(9...9), .write)])
          .release()
        lock.setCountsAcquisitions(false)
        lock.lock(over: KeyRange(0...9), .write).release()
        #expect(lock.counters.acquisitions == 3)
      }
    }

    @Test func `looking while threads lock and release tells what was there`() {
      withWatchdog("looking while threads lock") {
        let lock = makeLock(.init(granuleShift: 2))
        let done = Counter()
        runThreads(4) { index in
          if index == 3 {
            while done.value.load(ordering: .acquiring) < 3 {
              for request in lock.requests() { #expect(request.range.last < 64) }
            }
            return
          }
          var random = SeededRandom(for: "inspection \(index)")
          for _ in 0..<2000 {
            let start = random.next() % 60
            let hold = lock.lock(
              over: KeyRange(start...(start + random.next() % 4)), start % 3 == 0 ? .write : .read)
            hold.release()
          }
          done.value.add(1, ordering: .releasing)
        }
        #expect(lock.requests().isEmpty)
      }
    }
  }
}
