// SPDX-License-Identifier: Apache-2.0
//
// The code of the documentation, so that it compiles and does what its page says. Scripts/check-doc-code
// compares it with the pages.

import RangeLocks
import RangelandTestSupport
import Testing

extension LockTests {
  @Suite struct DocumentationTests {
    @Test func `What a range lock is`() {
      let lock = RangeLock()
      lock.withWriteLock(over: KeyRange(4096..<8192)) {
        // Nobody else holds a key of 4096..<8192.
      }
      #expect(lock.holdCount == 0)
    }

    @Test func `Ranges`() {
      let page = KeyRange(0x1000..<0x2000)
      let toTheEnd = KeyRange(0x2000...)
      let everything = KeyRange.all
      #expect(page.last == 0x1FFF)
      #expect(toTheEnd.last == .max)
      #expect(everything.contains(toTheEnd) && everything.contains(page))
      #expect(!page.overlaps(toTheEnd))
    }

    /// Stands for what a program keeps under a range.
    private struct Entries {
      var isStale = true
      mutating func refresh() { isStale = false }
    }

    @Test func `Choosing a mode: look, then write`() {
      let lock = RangeLock()
      let page = KeyRange(0x1000..<0x2000)
      var entries = Entries()
      var hold = lock.lock(over: page, .upgradeableRead)
      if entries.isStale {
        hold.upgrade()
        entries.refresh()
        hold.downgrade()
      }
      // Reading goes on; nobody wrote between the look and the refresh.
      #expect(hold.mode == .read)
      #expect(!entries.isStale)
      hold.release()
    }

    @Test func `Choosing a mode: wide first, then narrow`() {
      let lock = RangeLock()
      let end: UInt64 = 4096
      var tail = lock.lock(over: KeyRange(end...), .write)
      let record = KeyRange(end..<end + 512)
      tail.shrink(to: record)
      #expect(tail.range == record)
      #expect(lock.isFree(over: KeyRange((end + 512)...), .write))
      #expect(!lock.isFree(over: record, .read))
      tail.release()
    }

    @Test func `Lock order: all at once`() {
      let lock = RangeLock()
      let (source, target) = (KeyRange(800..<808), KeyRange(0..<8))
      let both = lock.lock(overAll: [RangeRequest(source, .write), RangeRequest(target, .write)])
      #expect(both.ranges == [RangeRequest(target, .write), RangeRequest(source, .write)])
      both.release()
      #expect(lock.holdCount == 0)
    }

    @Test func `Tasks`() async throws {
      let dog = Watchdog(seconds: 60, "tasks")
      defer { dog.cancel() }
      let lock = RangeLock()
      let values = Array(0..<200)
      let sum = try await lock.withLock(over: KeyRange(0..<100), .read) {
        values[0..<100].reduce(0, +)
      }
      #expect(sum == 4950)
    }

    @Test func `Tasks: cancellation`() async throws {
      let dog = Watchdog(seconds: 60, "a cancelled task")
      defer { dog.cancel() }
      let lock = RangeLock()
      let held = try await lock.lock(over: .all, .write)
      let waiting = Task {
        let hold = try await lock.lock(over: KeyRange(0..<100), .write)
        hold.release()
      }
      waiting.cancel()
      // While everything is held the request can only end by cancellation.
      await #expect(throws: CancellationError.self) { try await waiting.value }
      held.release()
      #expect(lock.holdCount == 0 && lock.waiterCount == 0)
    }
  }
}
