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

    /// Carries a hold to the thread that releases it.
    private final class Box: @unchecked Sendable {
      // Sendable: one thread fills it before the other one begins.
      private var hold: RangeHold?
      init(_ hold: consuming RangeHold) { self.hold = consume hold }
      func release() { hold = nil }
    }

    private func startThread(_ body: @escaping @Sendable () -> Void) -> TestThread {
      TestThread(body)
    }

    @Test func `Checked builds: a hold that another thread releases`() {
      withWatchdog("a transferable hold") {
        let lock = RangeLock()
        let page = KeyRange(0x1000..<0x2000)
        let hold = lock.lock(over: page, .write)
        hold.makeTransferable()
        let box = Box(hold)
        let writer = startThread { box.release() }
        // Without makeTransferable() a checked build would end here, if the writer is late.
        lock.lock(over: page, .read).release()
        writer.join()
        #expect(lock.holdCount == 0)
      }
    }

    @Test func `Checked builds: locks with a name`() {
      let tables = RangeLock(configuration: .init(name: "tables"))
      let rows = RangeLock(configuration: .init(name: "rows"))
      let table = tables.lock(over: .all, .read)
      let row = rows.lock(over: KeyRange(7...7), .write)
      row.release()
      table.release()
      // The other order, without waiting.
      let first = rows.lock(over: KeyRange(7...7), .write)
      #expect(tables.isFree(over: .all, .read))
      first.release()
    }

    /// Ranges that somebody did not get.
    private final class Failures: Sendable {
      let ranges = Mutexed<[KeyRange]>([])
      func add(_ range: KeyRange) { ranges.change { $0.append(range) } }
    }

    @Test func `Tracing`() {
      let lock = RangeLock()
      let failures = Failures()
      lock.setTracingHook { event in
        if event.point == .acquired, !event.isGranted { failures.add(event.range) }
      }
      let hold = lock.lock(over: KeyRange(0..<100), .write)
      if lock.tryLock(over: KeyRange(50..<60), .read) != nil { preconditionFailure() }
      hold.release()
      lock.setTracingHook(nil)
      #expect(failures.ranges.value == [KeyRange(50..<60)])
    }

    @Test func `Counters`() {
      let lock = RangeLock()
      let page = KeyRange(0x1000..<0x2000)
      let hold = lock.lock(over: page, .write)
      let before = lock.counters
      let late = lock.lock(over: page, .read, deadline: 0)
      let after = lock.counters
      // One that had to wait, and gave up: it counts as contended, and not as a hand-off.
      let isContended = after.contended - before.contended == 1
      let isHandedOver = after.handOffs - before.handOffs == 1
      let isGranted = late != nil
      #expect(isContended && !isHandedOver && !isGranted)
      hold.release()
    }

    @Test func `Inspection`() {
      let lock = RangeLock()
      let page = KeyRange(0x1000..<0x2000)
      lock.setNotesTimes(true)
      let reader = lock.lock(over: page, .read)
      for request in lock.requests(overlapping: page) where request.state == .holding {
        print(request.range, request.mode, request.thread ?? -1, request.since ?? 0)
      }
      reader.release()
      let noted = lock.lock(over: page, .read)
      #expect(lock.requests(overlapping: page).map(\.thread) == [RangeLock.currentThread])
      #expect(lock.requests(overlapping: page).allSatisfy { $0.since != nil })
      noted.release()
    }
  }
}
