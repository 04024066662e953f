// SPDX-License-Identifier: Apache-2.0
//
// The tracing hook: what is told, in which order, and that it may come and go while others use the lock.

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import RangeLocks

/// Events in the order in which they were told.
private final class Trace: @unchecked Sendable {
  // Sendable: `stored` is protected by `latch`.
  private let latch = Latch()
  private var stored: [RangeLock.TraceEvent] = []

  func note(_ event: RangeLock.TraceEvent) {
    latch.lock()
    stored.append(event)
    latch.unlock()
  }

  var events: [RangeLock.TraceEvent] {
    latch.lock()
    defer { latch.unlock() }
    return stored
  }

  /// As text: point, first key, mode, and a mark where a request gave up.
  var lines: [String] {
    events.map { "\($0.point) \($0.range.first) \($0.mode)\($0.isGranted ? "" : " in vain")" }
  }
}

extension LockTests {
  @Suite struct TracingTests {
    private func traced(_ whole: Bool) -> (RangeLock, Trace) {
      let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: whole))
      let trace = Trace()
      lock.setTracingHook { trace.note($0) }
      return (lock, trace)
    }

    @Test(arguments: [true, false])
    func `The three points of a request are told, and a request that gives up`(_ whole: Bool) {
      let (lock, trace) = traced(whole)
      lock.lock(over: KeyRange(3...9), .write).release()
      #expect(trace.lines == ["started 3 write", "acquired 3 write", "released 3 write"])
      let numbers = trace.events.map(\.hold)
      #expect(numbers[0] == 0)
      #expect(numbers[1] != 0 && numbers[1] == numbers[2])
      let hold = lock.lock(over: KeyRange(0...5000), .read)
      #expect(!lock.isFree(over: KeyRange(7...7), .write))
      if lock.lock(over: KeyRange(8...8), .write, deadline: 0) != nil { Issue.record("granted") }
      hold.release()
      #expect(
        trace.lines.dropFirst(3) == [
          "started 0 read", "acquired 0 read", "started 7 write", "acquired 7 write in vain",
          "started 8 write", "acquired 8 write in vain", "released 0 read",
        ])
      // And nothing any more.
      lock.setTracingHook(nil)
      lock.lock(over: KeyRange(3...9), .write).release()
      #expect(trace.events.count == 10)
    }

    @Test(arguments: [true, false])
    func `Changes of a hold and requests for several ranges are told`(_ whole: Bool) {
      let (lock, trace) = traced(whole)
      var hold = lock.lock(over: KeyRange(0...99), .upgradeableRead)
      hold.upgrade()
      hold.downgrade(to: .upgradeableRead)
      let isWriter = hold.tryUpgrade()
      #expect(isWriter)
      hold.shrink(to: KeyRange(50...60))
      hold.release()
      #expect(
        trace.lines == [
          "started 0 upgradeableRead", "acquired 0 upgradeableRead", "started 0 write",
          "acquired 0 write", "acquired 0 upgradeableRead", "started 0 write", "acquired 0 write",
          "acquired 50 write", "released 50 write",
        ])
      let ranges = lock.lock(overAll: [
        .init(KeyRange(100...110), .read), .init(KeyRange(200...210), .write),
      ])
      if lock.tryLock(overAll: [.init(KeyRange(105...105), .write)]) != nil {
        Issue.record("granted")
      }
      ranges.release()
      #expect(
        trace.lines.dropFirst(9) == [
          "started 100 read", "started 200 write", "acquired 100 read", "acquired 200 write",
          "started 105 write", "acquired 105 write in vain", "released 100 read",
          "released 200 write",
        ])
    }

    @Test func `Tasks are told too, and a cancelled one gives up`() async throws {
      let dog = Watchdog(seconds: 60, "traced tasks")
      defer { dog.cancel() }
      let (lock, trace) = traced(false)
      let held = Held(try await lock.lock(over: KeyRange(0...9), .write))
      let task = Task {
        let hold: RangeHold = try await lock.lock(over: KeyRange(4...4), .write)
        hold.release()
      }
      task.cancel()
      await #expect(throws: CancellationError.self) { try await task.value }
      held.release()
      let ranges: RangeSetHold = try await lock.lock(overAll: [.init(KeyRange(7...7), .read)])
      ranges.release()
      #expect(
        trace.lines == [
          "started 0 write", "acquired 0 write", "started 4 write", "acquired 4 write in vain",
          "released 0 write", "started 7 read", "acquired 7 read", "released 7 read",
        ])
    }

    @Test func `Conflicting holds are told one after the other`() {
      let seeds = SeededRandom(for: "tracing: order")
      withWatchdog("conflicting holds are told in order, SEED=\(seeds.seed)") {
        let (lock, trace) = traced(true)
        runThreads(4) { thread in
          var random = seeds.fork(thread)
          for _ in 0..<500 {
            let first = random.below(40)
            let mode: LockMode = random.chance(50) ? .write : .read
            let hold = lock.lock(over: KeyRange(first...first + random.below(30)), mode)
            if random.chance(20) { rl_yield() }
            hold.release()
          }
        }
        var held: [UInt64: RangeLock.TraceEvent] = [:]
        var granted = 0
        for event in trace.events {
          switch event.point {
          case .started: break
          case .acquired:
            // The hook of the grant runs after the one of the release that it waited for.
            for other in held.values where other.range.overlaps(event.range) {
              #expect(!other.mode.conflicts(with: event.mode), "\(other) \(event)")
            }
            #expect(held.updateValue(event, forKey: event.hold) == nil)
            granted += 1
          case .released: #expect(held.removeValue(forKey: event.hold) != nil)
          }
        }
        #expect(granted == 2000)
        #expect(held.isEmpty)
      }
    }

    @Test func `Stress: a hook comes and goes while threads and the whole-lock mode work`() {
      let seeds = SeededRandom(for: "tracing: hooks that come and go")
      withWatchdog("hooks that come and go, SEED=\(seeds.seed)") {
        let before = testPool.blocksInUse
        let lock = makeLock(.init(granuleShift: 2))
        let owners = OwnerWords(64)
        let calls = Mutexed(0)
        let running = Atomic<Int>(3)
        runThreads(4) { thread in
          if thread == 3 {
            while running.load(ordering: .acquiring) > 0 {
              // The hook owns something, which ends with it.
              let counted = Trace()
              lock.setTracingHook { event in
                counted.note(event)
                calls.change { $0 += 1 }
              }
              rl_yield()
              lock.setTracingHook(nil)
              _ = lock.directory.enterWhole()
              rl_yield()
            }
            return
          }
          var random = seeds.fork(thread)
          for _ in 0..<Int(5000 * stressScale) {
            let first = random.below(64)
            let range = KeyRange(first...min(63, first + random.below(random.chance(20) ? 60 : 3)))
            let mode: LockMode = random.chance(40) ? .write : .read
            let hold = lock.lock(over: range, mode)
            let keys = Int(range.first)...Int(range.last)
            owners.enter(keys, mode, seed: seeds.seed)
            owners.leave(keys, mode)
            hold.release()
          }
          running.subtract(1, ordering: .releasing)
        }
        print("calls of hooks: \(calls.value)")
        #expect(calls.value > 0)
        #expect(owners.isQuiet)
        #expect(lock.holdCount == 0)
        #expect(testPool.blocksInUse == before)
      }
    }

    @Test func `A hook may take itself out, and ends when it is taken out`() {
      let lock = makeLock()
      weak var kept: Trace?
      do {
        let trace = Trace()
        kept = trace
        lock.setTracingHook { [lock = Unmanaged.passUnretained(lock)] event in
          trace.note(event)
          lock.takeUnretainedValue().setTracingHook(nil)
        }
      }
      #expect(kept != nil)
      lock.lock(over: KeyRange(0...0), .write).release()
      #expect(kept == nil)
      lock.lock(over: KeyRange(0...0), .write).release()
      lock.setTracingHook { _ in }
    }
  }
}
