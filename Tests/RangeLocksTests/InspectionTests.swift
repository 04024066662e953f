// SPDX-License-Identifier: Apache-2.0

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
          .init(range: KeyRange(0...5000), mode: .read, state: .holding)
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
              .init(range: KeyRange(5...20), mode: .write, state: .holding),
              .init(range: KeyRange(100...110), mode: .read, state: .holding),
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
