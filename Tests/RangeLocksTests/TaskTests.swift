// SPDX-License-Identifier: Apache-2.0
//
// Waiting in tasks: suspension, cancellation, and that no thread of the pool is blocked.

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct TaskTests {
    /// Suspends until `condition` holds; bounded by the watchdog. A thread of its own looks, so that no task keeps a
    /// thread of the pool to itself meanwhile.
    private func waitInTask(_ condition: @escaping @Sendable () -> Bool) async {
      let thread = await withCheckedContinuation { continuation in
        let started = Mutexed<TestThread?>(nil)
        started.change { thread in
          thread = TestThread {
            waitUntil(condition)
            continuation.resume(returning: started)
          }
        }
      }
      thread.value?.join()
    }

    @Test func `More waiting tasks than threads do not keep others from running`() async throws {
      let dog = Watchdog(seconds: 60, "suspended tasks")
      defer { dog.cancel() }
      let lock = makeLock()
      let held = Held(try await lock.lock(over: KeyRange(0...9), .write))
      let count = Mutexed(0)
      let tasks = (0..<200).map { index in
        Task {
          let hold: RangeHold = try await lock.lock(
            over: KeyRange(0...9), index % 2 == 0 ? .read : .write)
          count.change { $0 += 1 }
          hold.release()
        }
      }
      // If a waiting task blocked its thread, this one would never run again.
      await waitInTask { lock.waiterCount == 200 }
      #expect(count.value == 0)
      held.release()
      for task in tasks { try await task.value }
      #expect(count.value == 200)
      #expect(lock.holdCount == 0)
    }

    @Test func `A cancelled task gives up and leaves no trace`() async throws {
      let dog = Watchdog(seconds: 60, "cancelled task")
      defer { dog.cancel() }
      let lock = makeLock(.init(granuleShift: 4))
      let held = Held(try await lock.lock(over: KeyRange(0...9), .read))
      let writer = Task {
        let hold: RangeHold = try await lock.lock(over: KeyRange(5...500), .write)
        hold.release()
      }
      await waitInTask { lock.waiterCount == 1 }
      let reader = Task {
        let hold: RangeHold = try await lock.lock(over: KeyRange(8...8), .read)
        hold.release()
      }
      await waitInTask { lock.waiterCount == 2 }
      writer.cancel()
      // The reader waited only for the writer.
      try await reader.value
      await #expect(throws: CancellationError.self) { try await writer.value }
      #expect(lock.waiterCount == 0)
      held.release()
      #expect(lock.isFree(over: .all, .write))
    }

    @Test func `A cancelled group gives up all its ranges`() async throws {
      let dog = Watchdog(seconds: 60, "cancelled group")
      defer { dog.cancel() }
      let lock = makeLock(.init(granuleShift: 4))
      let held = Held(try await lock.lock(over: KeyRange(50...59), .write))
      let group = Task {
        let hold: RangeSetHold = try await lock.lock(overAll: [
          .init(KeyRange(0...9), .write), .init(KeyRange(50...50), .read),
          .init(KeyRange(100...100), .write),
        ])
        hold.release()
      }
      await waitInTask { lock.waiterCount == 3 }
      #expect(!lock.isFree(over: KeyRange(0...0), .read))
      group.cancel()
      await #expect(throws: CancellationError.self) { try await group.value }
      #expect(lock.isFree(over: KeyRange(0...49), .write))
      #expect(lock.isFree(over: KeyRange(60...), .write))
      held.release()
      let all: RangeSetHold = try await lock.lock(overAll: [.init(.all, .write)])
      all.release()
    }

    @Test func `Stress: tasks and threads, cancelled at any time, share no key`() async {
      let seeds = SeededRandom(for: "stress of tasks")
      let dog = Watchdog(seconds: 120, "tasks, SEED=\(seeds.seed)")
      defer { dog.cancel() }
      let before = testPool.blocksInUse
      let lock = makeLock(.init(granuleShift: 2))
      let owners = OwnerWords(64)
      let cancelled = Mutexed(0)
      @Sendable func range(_ random: inout SeededRandom) -> KeyRange {
        let first = random.below(64)
        return KeyRange(first...min(63, first + random.below(random.chance(20) ? 60 : 4)))
      }
      @Sendable func visit(_ hold: borrowing RangeHold) {
        let keys = Int(hold.range.first)...Int(hold.range.last)
        owners.enter(keys, hold.mode, seed: seeds.seed)
        owners.leave(keys, hold.mode)
      }
      let thread = TestThread {
        var random = seeds.fork(1000)
        for _ in 0..<Int(3000 * stressScale) {
          let hold = lock.lock(over: range(&random), random.chance(50) ? .read : .write)
          visit(hold)
          hold.release()
        }
      }
      for round in 0..<Int(40 * stressScale) {
        await withTaskGroup(of: Void.self) { group in
          for index in 0..<20 {
            group.addTask {
              var random = seeds.fork(round * 100 + index)
              let work = Task {
                for _ in 0..<10 {
                  let hold: RangeHold = try await lock.lock(
                    over: range(&random), random.chance(40) ? .read : .write)
                  visit(hold)
                  if random.chance(30) { await Task.yield() }
                  hold.release()
                }
              }
              var other = seeds.fork(round * 100 + index + 50)
              for _ in 0..<other.below(12) { await Task.yield() }
              if other.chance(50) { work.cancel() }
              if case .failure = await work.result { cancelled.change { $0 += 1 } }
            }
          }
        }
      }
      thread.join()
      print("cancelled: \(cancelled.value)")
      #expect(owners.isQuiet)
      #expect(lock.holdCount == 0)
      #expect(lock.waiterCount == 0)
      #expect(testPool.blocksInUse == before)
    }
  }
}

/// A value that several tasks change.
final class Mutexed<Value>: @unchecked Sendable {
  // Sendable: `stored` is protected by `latch`.
  private let latch = Latch()
  private var stored: Value

  init(_ value: Value) { stored = value }

  func change(_ body: (inout Value) -> Void) {
    latch.lock()
    body(&stored)
    latch.unlock()
  }

  var value: Value {
    latch.lock()
    defer { latch.unlock() }
    return stored
  }
}
