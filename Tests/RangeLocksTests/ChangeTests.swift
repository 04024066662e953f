// SPDX-License-Identifier: Apache-2.0
//
// Holds that change: upgrade, downgrade, shrink, by deterministic schedules.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct ChangeTests {
    /// Ranges of several levels, one, two and three granules (of 16 keys at the lowest).
    static let ranges = [
      KeyRange(3...13), KeyRange(12...20), KeyRange(8...39), KeyRange(0...2000), KeyRange.all,
    ]
    static let wholeOrNot = [true, false]

    private func makeLock(_ whole: Bool) -> RangeLock {
      RangeLocksTests.makeLock(.init(granuleShift: 4, usesWholeLockMode: whole))
    }

    @Test(arguments: ranges, wholeOrNot)
    func `An upgradeable reader shares with readers, not with another, and may become a writer`(
      _ range: KeyRange, _ whole: Bool
    ) {
      let lock = makeLock(whole)
      var hold = lock.lock(over: range, .upgradeableRead)
      #expect(lock.isFree(over: range, .read))
      #expect(!lock.isFree(over: range, .upgradeableRead))
      #expect(!lock.isFree(over: range, .write))
      let reader = Held(lock.lock(over: range, .read))
      let refused = hold.tryUpgrade()
      #expect(!refused)
      #expect(lock.isFree(over: range, .read))
      reader.release()
      let granted = hold.tryUpgrade()
      #expect(granted)
      #expect(!lock.isFree(over: range, .read))
      hold.downgrade(to: .upgradeableRead)
      #expect(lock.isFree(over: range, .read))
      #expect(!lock.isFree(over: range, .upgradeableRead))
      hold.downgrade()
      #expect(lock.isFree(over: range, .upgradeableRead))
      #expect(!lock.isFree(over: range, .write))
      hold.release()
      #expect(lock.isFree(over: .all, .write))
      #expect(lock.holdCount == 0)
    }

    @Test(arguments: ranges, ranges)
    func `Of two readers neither becomes a writer`(_ first: KeyRange, _ second: KeyRange) {
      let lock = makeLock(true)
      var one = lock.lock(over: first, .read)
      var two = lock.lock(over: second, .read)
      let results = (one.tryUpgrade(), two.tryUpgrade())
      #expect(results == (false, false))
      one.release()
      let alone = two.tryUpgrade()
      #expect(alone)
      two.release()
    }

    @Test(arguments: ranges, ranges)
    func `An upgrade waits for readers and keeps new ones out`(
      _ range: KeyRange, _ other: KeyRange
    ) {
      withWatchdog("upgrade of \(range) among \(other)") {
        let lock = makeLock(false)
        let journal = Journal()
        let reader = Held(lock.lock(over: other, .read))
        let upgrader = TestThread {
          var hold = lock.lock(over: range, .upgradeableRead)
          hold.upgrade()
          journal.note("writer")
          hold.release()
        }
        waitUntil { lock.waiterCount == 1 }
        // Both its read and its wish to write count.
        #expect(lock.holdCount == 2)
        #expect(!lock.isFree(over: range, .read))
        let late = TestThread {
          lock.withReadLock(over: range) { journal.note("reader") }
        }
        waitUntil { lock.waiterCount == 2 }
        reader.release()
        upgrader.join()
        late.join()
        #expect(journal.all == ["writer", "reader"])
        #expect(lock.holdCount == 0)
      }
    }

    @Test func `A plain reader does not become a writer beside an upgrade that waits`() {
      withWatchdog("try beside an upgrade") {
        let lock = makeLock(false)
        var reader = lock.lock(over: KeyRange(0...9), .read)
        let upgrader = TestThread {
          var hold = lock.lock(over: KeyRange(5...14), .upgradeableRead)
          hold.upgrade()
          hold.release()
        }
        waitUntil { lock.waiterCount == 1 }
        let granted = reader.tryUpgrade()
        #expect(!granted)
        #expect(lock.waiterCount == 1)
        reader.release()
        upgrader.join()
      }
    }

    @Test
    func `A reader that waits for another writer is held back by an upgrade, not overtaken twice`()
    {
      withWatchdog("upgrade past a waiting reader") {
        let lock = makeLock(false)
        let journal = Journal()
        let writer = Held(lock.lock(over: KeyRange(0...9), .write))
        // Waits for the writer; overlaps the upgrade, which it does not conflict with yet.
        let waiting = TestThread {
          lock.withReadLock(over: KeyRange(5...25)) { journal.note("reader") }
        }
        waitUntil { lock.waiterCount == 1 }
        var hold = lock.lock(over: KeyRange(20...29), .read)
        let granted = hold.tryUpgrade()
        #expect(granted)
        writer.release()
        #expect(lock.waiterCount == 1)
        journal.note("writer")
        hold.release()
        waiting.join()
        #expect(journal.all == ["writer", "reader"])
      }
    }

    @Test func `A shrunken hold frees what it gave up, and wakes who waited for it`() {
      withWatchdog("shrink") {
        for whole in Self.wholeOrNot {
          let lock = makeLock(whole)
          for (old, new) in [
            (KeyRange(0...9), KeyRange(3...5)), (KeyRange(8...39), KeyRange(17...18)),
            (KeyRange(0...2000), KeyRange(1000...2000)), (.all, KeyRange(0...0)),
            (.all, KeyRange(UInt64.max...)),
          ] {
            var hold = lock.lock(over: old, .write)
            hold.shrink(to: new)
            #expect(hold.range == new)
            #expect(!lock.isFree(over: new, .read))
            if new.first > old.first {
              #expect(lock.isFree(over: KeyRange(old.first...new.first - 1), .write))
              #expect(!lock.isFree(over: KeyRange(old.first...new.first), .write))
            }
            if new.last < old.last {
              #expect(lock.isFree(over: KeyRange(new.last + 1...old.last), .write))
              #expect(!lock.isFree(over: KeyRange(new.last...old.last), .write))
            }
            hold.release()
            #expect(lock.isFree(over: .all, .write))
          }
          var hold = lock.lock(over: KeyRange(0...99), .write)
          let journal = Journal()
          let high = TestThread {
            lock.withWriteLock(over: KeyRange(50...60)) { journal.note("high") }
          }
          waitUntil { lock.waiterCount == 1 }
          let low = TestThread {
            lock.withWriteLock(over: KeyRange(5...6)) { journal.note("low") }
          }
          waitUntil { lock.waiterCount == 2 }
          hold.shrink(to: KeyRange(0...49))
          high.join()
          #expect(journal.all == ["high"])
          hold.release()
          low.join()
        }
      }
    }
  }
}
