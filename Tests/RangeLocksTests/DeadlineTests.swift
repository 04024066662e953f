// SPDX-License-Identifier: Apache-2.0
//
// Deadlines of tasks, of upgrades and of requests for several ranges: a request that gives up leaves nothing behind, and a
// hold that it was about stays what it was.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

/// A time that comes, but not at once.
private func soon() -> UInt64 { rl_monotonic_ns() + 2_000_000 }

/// A time that does not come while a test runs.
private func never() -> UInt64 { rl_monotonic_ns() + 3_600_000_000_000 }

extension LockTests {
  @Suite struct DeadlineTests {
    /// One, two and three granules, and coarser levels (of 16 keys at the lowest).
    static let ranges = [
      KeyRange(3...13), KeyRange(12...20), KeyRange(8...39), KeyRange(0...2000), KeyRange.all,
    ]

    private func makeLock(_ whole: Bool = false) -> RangeLock {
      RangeLocksTests.makeLock(.init(granuleShift: 4, usesWholeLockMode: whole))
    }

    /// A reader of another thread, so that no thread waits for itself.
    private final class Reader: Sendable {
      private let lock: RangeLock
      private let held: Held

      init(_ lock: RangeLock, _ range: KeyRange) {
        self.lock = lock
        let hold = lock.lock(over: range, .read)
        hold.makeTransferable()
        held = Held(hold)
      }

      func release() { held.release() }
    }

    @Test(arguments: ranges, ranges)
    func `An upgrade that is too late leaves its hold as it was`(
      _ range: KeyRange, _ other: KeyRange
    ) {
      withWatchdog("late upgrade of \(range) among \(other)") {
        let before = testPool.blocksInUse
        let lock = makeLock()
        let reader = Reader(lock, other)
        var hold = lock.lock(over: range, .upgradeableRead)
        for deadline in [0, soon()] {
          let isWriter = hold.upgrade(deadline: deadline)
          #expect(!isWriter)
          #expect(hold.mode == .upgradeableRead)
          #expect(lock.holdCount == 2 && lock.waiterCount == 0)
          // Read, and held.
          #expect(lock.isFree(over: range, .read))
          #expect(!lock.isFree(over: range, .upgradeableRead))
          #expect(!lock.isFree(over: range, .write))
        }
        reader.release()
        let isWriter = hold.upgrade(deadline: never())
        #expect(isWriter && hold.mode == .write)
        #expect(!lock.isFree(over: range, .read))
        hold.release()
        #expect(lock.isFree(over: .all, .write))
        #expect(testPool.blocksInUse == before)
      }
    }

    @Test(arguments: ranges)
    func `Who waited only for the upgrade enters when it gives up, and a writer does not`(
      _ range: KeyRange
    ) {
      withWatchdog("queue behind a late upgrade of \(range)") {
        let lock = makeLock()
        let journal = Journal()
        let reader = Reader(lock, range)
        let upgrader = TestThread {
          var hold = lock.lock(over: range, .upgradeableRead)
          // Ended by the test, when the other reader is in the queue.
          while hold.upgrade(deadline: soon()) { Issue.record("granted beside a reader") }
          waitUntil { journal.all.count == 1 }
          journal.note("upgrader")
          hold.release()
        }
        waitUntil { lock.waiterCount == 1 || lock.holdCount == 2 }
        let late = TestThread {
          lock.withReadLock(over: range) { journal.note("reader") }
        }
        late.join()
        let writer = TestThread {
          lock.withWriteLock(over: range) { journal.note("writer") }
        }
        upgrader.join()
        waitUntil { lock.waiterCount == 1 }
        journal.note("first reader")
        reader.release()
        writer.join()
        #expect(journal.all == ["reader", "upgrader", "first reader", "writer"])
        #expect(lock.holdCount == 0)
      }
    }

    @Test(arguments: [true, false])
    func `A task's deadline ends its wait, and one that has passed does not wait`(
      _ whole: Bool
    ) async throws {
      let dog = Watchdog(seconds: 60, "late tasks")
      defer { dog.cancel() }
      let before = testPool.blocksInUse
      let lock = makeLock(whole)
      // Free: granted even if it is late.
      let early: RangeHold? = try await lock.lock(over: KeyRange(0...9), .write, deadline: 0)
      let held = Held(early!)
      for deadline in [0, soon()] {
        let hold: RangeHold? = try await lock.lock(
          over: KeyRange(5...90), .read, deadline: deadline)
        let isGranted = hold != nil
        #expect(!isGranted)
        let holds: RangeSetHold? = try await lock.lock(
          overAll: [
            .init(KeyRange(9...9), .read), .init(KeyRange(20...29), .write),
            .init(KeyRange(500...599), .read),
          ], deadline: deadline)
        let areGranted = holds != nil
        #expect(!areGranted)
        #expect(lock.holdCount == 1 && lock.waiterCount == 0)
        #expect(lock.isFree(over: KeyRange(10...), .write))
      }
      let task = Task {
        let hold: RangeHold? = try await lock.lock(
          over: KeyRange(0...9), .read, deadline: never())
        guard let hold else { return false }
        hold.release()
        return true
      }
      let group = Task {
        let hold: RangeSetHold? = try await lock.lock(
          overAll: [.init(KeyRange(0...0), .read), .init(KeyRange(2...2), .read)],
          deadline: never())
        guard let hold else { return false }
        hold.release()
        return true
      }
      while lock.waiterCount < 3 { await Task.yield() }
      held.release()
      let areGranted = (try await task.value, try await group.value)
      #expect(areGranted == (true, true))
      #expect(lock.isFree(over: .all, .write))
      #expect(testPool.blocksInUse == before)
    }

    @Test func `A task that is cancelled before its deadline gives up as ever`() async throws {
      let dog = Watchdog(seconds: 60, "cancelled tasks with a deadline")
      defer { dog.cancel() }
      let lock = makeLock()
      let held = Held(try await lock.lock(over: KeyRange(0...9), .write))
      let one = Task {
        let hold: RangeHold? = try await lock.lock(over: .all, .write, deadline: never())
        return hold == nil
      }
      let several = Task {
        let hold: RangeSetHold? = try await lock.lock(
          overAll: [.init(KeyRange(5...5), .write)], deadline: never())
        return hold == nil
      }
      while lock.waiterCount < 2 { await Task.yield() }
      one.cancel()
      several.cancel()
      await #expect(throws: CancellationError.self) { try await one.value }
      await #expect(throws: CancellationError.self) { try await several.value }
      #expect(lock.waiterCount == 0)
      held.release()
      #expect(lock.isFree(over: .all, .write))
    }

    @Test(arguments: ranges)
    func `A task's upgrade is granted, late, or cancelled`(_ range: KeyRange) async throws {
      let dog = Watchdog(seconds: 60, "upgrades of tasks over \(range)")
      defer { dog.cancel() }
      let before = testPool.blocksInUse
      let lock = makeLock()
      let reader: RangeHold = try await lock.lock(over: range, .read)
      reader.makeTransferable()
      let held = Held(reader)
      var hold: RangeHold = try await lock.lock(over: range, .upgradeableRead)
      for deadline in [0, soon()] {
        let isWriter = try await hold.upgrade(deadline: deadline)
        #expect(!isWriter)
        #expect(hold.mode == .upgradeableRead)
      }
      #expect(lock.isFree(over: range, .read))
      hold.release()
      let cancelled = Task {
        var hold: RangeHold = try await lock.lock(over: range, .upgradeableRead)
        do {
          try await hold.upgrade()
          return "granted"
        } catch {
          let isFree = lock.isFree(over: range, .upgradeableRead)
          return hold.mode == .upgradeableRead && !isFree ? "as before" : "lost"
        }
      }
      while lock.waiterCount == 0 { await Task.yield() }
      #expect(!lock.isFree(over: range, .read))
      cancelled.cancel()
      #expect(try await cancelled.value == "as before")
      let granted = Task {
        var hold: RangeHold = try await lock.lock(over: range, .upgradeableRead)
        let isWriter = try await hold.upgrade(deadline: never())
        return isWriter && hold.mode == .write
      }
      while lock.waiterCount == 0 { await Task.yield() }
      held.release()
      #expect(try await granted.value)
      #expect(lock.isFree(over: .all, .write))
      #expect(testPool.blocksInUse == before)
    }

    @Test func `Stress: deadlines and cancellations of tasks and upgrades at any time`() async {
      let seeds = SeededRandom(for: "stress of deadlines")
      let before = testPool.blocksInUse
      let lock = makeLock(true)
      let dog = Watchdog(
        seconds: 120, "deadlines, SEED=\(seeds.seed)", dump: { "\(lock.requests())" })
      defer { dog.cancel() }
      let owners = OwnerWords(64)
      let ends = Mutexed([String: Int]())
      @Sendable func range(_ random: inout SeededRandom) -> KeyRange {
        let first = random.below(64)
        return KeyRange(first...min(63, first + random.below(random.chance(20) ? 60 : 4)))
      }
      @Sendable func keys(_ range: KeyRange) -> ClosedRange<Int> {
        Int(range.first)...Int(range.last)
      }
      @Sendable func deadline(_ random: inout SeededRandom) -> UInt64 {
        random.chance(20) ? .max : rl_monotonic_ns() + random.below(200_000)
      }
      let thread = TestThread {
        var random = seeds.fork(1000)
        for _ in 0..<Int(3000 * stressScale) {
          let range = range(&random)
          let hold = lock.lock(over: range, .upgradeableRead, deadline: deadline(&random))
          guard var hold = hold else { continue }
          owners.enter(keys(range), .read, seed: seeds.seed)
          owners.leave(keys(range), .read)
          if hold.upgrade(deadline: deadline(&random)) {
            owners.enter(keys(range), .write, seed: seeds.seed)
            owners.leave(keys(range), .write)
          }
          hold.release()
        }
      }
      await withTaskGroup(of: Void.self) { group in
        for index in 0..<12 {
          group.addTask {
            for round in 0..<Int(40 * stressScale) {
              var random = seeds.fork(index * 1000 + round)
              let work = Task { [random] in
                var random = random
                let range = range(&random)
                let mode: LockMode = [.read, .upgradeableRead, .write][Int(random.below(3))]
                if random.chance(20) {
                  let other = KeyRange(70...79)
                  let both: RangeSetHold? = try await lock.lock(
                    overAll: [.init(range, mode), .init(other, .write)],
                    deadline: deadline(&random))
                  return both != nil ? "granted" : "late"
                }
                let hold: RangeHold? = try await lock.lock(
                  over: range, mode, deadline: deadline(&random))
                guard var hold = hold else { return "late" }
                owners.enter(keys(range), mode, seed: seeds.seed)
                if random.chance(50) { await Task.yield() }
                owners.leave(keys(range), mode)
                if mode == .upgradeableRead {
                  if try await hold.upgrade(deadline: deadline(&random)) {
                    owners.enter(keys(range), .write, seed: seeds.seed)
                    owners.leave(keys(range), .write)
                    return "upgraded"
                  }
                  return "upgrade late"
                }
                return "granted"
              }
              for _ in 0..<random.below(8) { await Task.yield() }
              if random.chance(40) { work.cancel() }
              let end = (try? await work.value) ?? "cancelled"
              ends.change { $0[end, default: 0] += 1 }
            }
          }
        }
      }
      thread.join()
      print("ends: \(ends.value.sorted { $0.key < $1.key })")
      #expect(owners.isQuiet)
      #expect(lock.holdCount == 0)
      #expect(lock.waiterCount == 0)
      #expect(testPool.blocksInUse == before)
    }
  }
}
