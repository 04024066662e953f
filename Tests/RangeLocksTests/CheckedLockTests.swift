// SPDX-License-Identifier: Apache-2.0
//
// Checked builds: who would wait for itself is told so, with both call sites, and nobody else is.

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import RangeLocks

/// What a process that trapped has said.
private struct Report {
  let text: String

  init(_ result: ExitTest.Result?) {
    text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
  }

  /// The lines of this file that it names, in order.
  var lines: [Int] {
    text.split(separator: "CheckedLockTests.swift:").dropFirst().compactMap {
      Int($0.prefix { $0.isNumber })
    }
  }

  /// The lines of this file in the message alone: the runtime puts a place of its own before it.
  func says(_ words: String, _ sites: [Int]) -> Bool {
    text.contains(words) && lines == sites
  }
}

/// Locks in an exit test, which captures nothing.
private func lock(_ name: StaticString? = nil) -> RangeLock {
  makeLock(.init(granuleShift: 4, name: name))
}

extension LockTests {
  @Suite(.enabled(if: RangeLock.isChecked)) struct CheckedLockTests {
    // MARK: Waiting for oneself

    @Test func `A thread that asks for what it holds is told both places`() async {
      let line = Misuse.conflictLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.conflict()
      }
      let report = Report(result)
      #expect(report.says("would wait for itself", [line + 5, line + 4]), "\(report.text)")
      #expect(report.text.contains("makeTransferable()"))
    }

    @Test func `So is one that asks for several ranges`() async {
      let line = Misuse.severalRangesLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.severalRanges()
      }
      let report = Report(result)
      #expect(report.says("would wait for itself", [line + 7, line + 4]), "\(report.text)")
    }

    @Test func `So is one that waits to become a writer beside its own read`() async {
      let line = Misuse.upgradeBesideReadLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.upgradeBesideRead()
      }
      let report = Report(result)
      #expect(report.says("would wait for itself", [line + 6, line + 5]), "\(report.text)")
    }

    @Test func `So is one that reads once more behind a writer that came between`() async {
      let line = Misuse.readAgainLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.readAgain()
      }
      let report = Report(result)
      #expect(
        report.says("read once more", [line + 7, line + 5, line + 5, line + 4]), "\(report.text)")
    }

    @Test func `So is one that waits behind who waits for it, without a common key`() async {
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.throughTheQueue()
      }
      let report = Report(result)
      #expect(report.text.contains("deadlock"), "\(report.text)")
      #expect(report.lines.count == 6)
    }

    @Test func `Two threads that wait for each other are told, over two locks`() async {
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.twoThreads()
      }
      let report = Report(result)
      #expect(report.text.contains("deadlock"), "\(report.text)")
      #expect(report.lines.count == 4)
    }

    @Test func `A task is told, wherever it runs`() async {
      let line = Misuse.taskLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await Misuse.task()
      }
      let report = Report(result)
      #expect(report.says("task", [line + 6, line + 4]), "\(report.text)")
    }

    @Test func `A task is told that its upgrade waits for itself`() async {
      let line = Misuse.taskUpgradeLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await Misuse.taskUpgrade()
      }
      let report = Report(result)
      #expect(report.says("would wait for itself", [line + 5, line + 3]), "\(report.text)")
    }

    // MARK: Not waiting for oneself

    @Test(arguments: [true, false])
    func `What another thread is to release may be waited for`(_ isGroup: Bool) {
      withWatchdog("transferable holds") {
        let lock = lock()
        let hold = lock.lock(over: KeyRange(0...9), .write)
        hold.makeTransferable()
        let held = Held(hold)
        let set = HeldSet()
        if isGroup {
          let group = lock.lock(overAll: [
            .init(KeyRange(10...19), .write), .init(KeyRange(30...39), .write),
          ])
          group.makeTransferable()
          set.put(group)
        }
        let other = TestThread {
          waitUntil { lock.waiterCount == 1 }
          set.release()
          held.release()
        }
        lock.lock(over: KeyRange(0...39), .write).release()
        other.join()
        #expect(lock.holdCount == 0)
      }
    }

    @Test func `What ended, wherever, is not held`() {
      let lock = lock()
      let held = Held(lock.lock(over: KeyRange(0...9), .write))
      let other = TestThread { held.release() }
      other.join()
      var hold = lock.lock(over: KeyRange(0...9), .write)
      // A weaker hold and fewer keys count as what they are.
      hold.shrink(to: KeyRange(0...4))
      lock.lock(over: KeyRange(5...9), .write).release()
      hold.downgrade()
      lock.lock(over: KeyRange(0...4), .read).release()
      hold.release()
      lock.lock(over: KeyRange(0...9), .write).release()
    }

    @Test func `A try, and a wait that ends by itself, may meet what one holds`() async throws {
      let dog = Watchdog(seconds: 60, "deadlines and tries")
      defer { dog.cancel() }
      let lock = lock()
      func blocking() -> (Bool, Bool) {
        var hold = lock.lock(over: KeyRange(0...9), .upgradeableRead)
        let reader = lock.lock(over: KeyRange(0...9), .read)
        let isGranted = lock.lock(over: KeyRange(5...5), .write, deadline: rl_monotonic_ns()) != nil
        let isWriter = hold.upgrade(deadline: rl_monotonic_ns() + 1000)
        let isFree = lock.isFree(over: KeyRange(5...5), .write)
        reader.release()
        hold.release()
        return (isGranted || isFree, isWriter)
      }
      #expect(blocking() == (false, false))
      let held = Held(try await lock.lock(over: .all, .write))
      let late: RangeHold? = try await lock.lock(
        over: KeyRange(1...1), .read, deadline: rl_monotonic_ns() + 1000)
      let isGranted = late != nil
      #expect(!isGranted)
      held.release()
    }

    @Test func `Circles that a deadline or a cancellation breaks are not reported`() async throws {
      let dog = Watchdog(seconds: 60, "circles that end")
      defer { dog.cancel() }
      let lock = lock()
      func blocking() {
        let barrier = Barrier(2)
        runThreads(2) { thread in
          let keys: (UInt64, UInt64) = thread == 0 ? (0, 1) : (1, 0)
          let hold = lock.lock(over: KeyRange(keys.0...keys.0), .write)
          barrier.wait()
          if thread == 0 {
            // Gives up, so that the other one goes on.
            if lock.lock(
              over: KeyRange(keys.1...keys.1), .write, deadline: rl_monotonic_ns() + 1_000_000)
              != nil
            {
              Issue.record("granted")
            }
          } else {
            lock.lock(over: KeyRange(keys.1...keys.1), .write).release()
          }
          hold.release()
        }
      }
      blocking()
      let held = Held(try await lock.lock(over: KeyRange(0...0), .write))
      let task = Task {
        let own = Held(try await lock.lock(over: KeyRange(1...1), .write))
        defer { own.release() }
        let hold: RangeHold = try await lock.lock(over: KeyRange(0...0), .write)
        hold.release()
      }
      while lock.waiterCount != 1 { await Task.yield() }
      task.cancel()
      // Waits for the task, which is told to give up.
      let hold: RangeHold = try await lock.lock(over: KeyRange(1...1), .write)
      hold.release()
      await #expect(throws: CancellationError.self) { try await task.value }
      held.release()
    }

    @Test func `Stress: threads that take ranges upwards, and wait, are not reported`() {
      let seeds = SeededRandom(for: "checks: no false report")
      withWatchdog(seconds: 120, "no false report, SEED=\(seeds.seed)") {
        let lock = makeLock(.init(granuleShift: 2, name: "stress"))
        // Equal or disjoint: going upwards is no order for ranges that overlap in part ("Lock order and deadlock").
        @Sendable func cell(_ number: UInt64) -> KeyRange { KeyRange(5 * number...5 * number + 4) }
        runThreads(6) { thread in
          var random = seeds.fork(thread)
          for _ in 0..<Int(1000 * stressScale) {
            let first = random.below(8)
            let mode: LockMode = [.read, .upgradeableRead, .write][Int(random.below(3))]
            var low = lock.lock(over: cell(first), mode)
            if random.chance(30) {
              let high = lock.lock(
                over: cell(first + 1 + random.below(3)), random.chance(50) ? .read : .write)
              high.release()
            } else if mode == .upgradeableRead {
              if random.chance(50) { low.upgrade() } else { _ = low.upgrade(deadline: 0) }
            }
            if random.chance(30) { low.downgrade() }
            low.release()
          }
        }
        #expect(lock.holdCount == 0 && lock.waiterCount == 0)
      }
    }
  }
}

/// Several ranges that another thread is to release.
private final class HeldSet: @unchecked Sendable {
  // Sendable: the test hands it over when the other thread looks.
  private var hold: RangeSetHold?

  func put(_ new: consuming RangeSetHold) { hold = consume new }
  func release() { hold = nil }
}

/// What a process does that is to be told. Not in the tests themselves: there every call stands on one line, that of a macro.
private enum Misuse {
  // A thread that asks for what it holds is told both places.
  static let conflictLine = #line
  static func conflict() {
    onThread {
      let lock = lock()
      let hold = lock.lock(over: KeyRange(0...9), .read)
      lock.lock(over: KeyRange(5...90), .write).release()
      hold.release()
    }
  }

  // So is one that asks for several ranges.
  static let severalRangesLine = #line
  static func severalRanges() {
    onThread {
      let lock = lock()
      let hold = lock.lock(overAll: [
        .init(KeyRange(0...9), .write), .init(KeyRange(40...49), .write),
      ])
      lock.lock(overAll: [.init(KeyRange(20...29), .read), .init(KeyRange(45...45), .read)])
        .release()
      hold.release()
    }
  }

  // So is one that waits to become a writer beside its own read.
  static let upgradeBesideReadLine = #line
  static func upgradeBesideRead() {
    onThread {
      let lock = lock()
      var hold = lock.lock(over: KeyRange(0...9), .upgradeableRead)
      let other = lock.lock(over: KeyRange(9...10), .read)
      hold.upgrade()
      other.release()
    }
  }

  // So is one that reads once more behind a writer that came between.
  static let readAgainLine = #line
  static func readAgain() {
    onThread {
      let lock = lock()
      let hold = lock.lock(over: KeyRange(0...9), .read)
      let writer = TestThread { lock.lock(over: KeyRange(5...19), .write).release() }
      waitUntil { lock.waiterCount == 1 }
      lock.lock(over: KeyRange(5...5), .read).release()
      hold.release()
      writer.join()
    }
  }

  // So is one that waits behind who waits for it, without a common key.
  static func throughTheQueue() {
    onThread {
      let lock = lock()
      let hold = lock.lock(over: KeyRange(0...9), .write)
      let first = TestThread { lock.lock(over: KeyRange(5...19), .write).release() }
      waitUntil { lock.waiterCount == 1 }
      let second = TestThread { lock.lock(over: KeyRange(15...29), .write).release() }
      waitUntil { lock.waiterCount == 2 }
      lock.lock(over: KeyRange(25...26), .read).release()
      hold.release()
      first.join()
      second.join()
    }
  }

  // Two threads that wait for each other are told, over two locks.
  static func twoThreads() {
    onThread {
      let (a, b) = (lock(), lock())
      let barrier = Barrier(2)
      runThreads(2) { thread in
        let (mine, other) = thread == 0 ? (a, b) : (b, a)
        let hold = mine.lock(over: KeyRange(0...9), .write)
        barrier.wait()
        other.lock(over: .all, .read).release()
        hold.release()
      }
    }
  }

  // A task is told, wherever it runs.
  static let taskLine = #line
  static func task() async throws {
    let lock = lock()
    let task = Task {
      let hold = Held(try await lock.lock(over: KeyRange(0...9), .write))
      await Task.yield()
      let again: RangeHold = try await lock.lock(over: KeyRange(9...9), .read)
      again.release()
      hold.release()
    }
    try await task.value
  }

  // A task is told that its upgrade waits for itself.
  static let taskUpgradeLine = #line
  static func taskUpgrade() async throws {
    let lock = lock()
    let reader = Held(try await lock.lock(over: KeyRange(0...9), .read))
    var hold: RangeHold = try await lock.lock(over: KeyRange(0...9), .upgradeableRead)
    try await hold.upgrade()
    reader.release()
  }
}
