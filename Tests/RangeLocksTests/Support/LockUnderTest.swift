// SPDX-License-Identifier: Apache-2.0
//
// What the matrix runs on: the semaphore, and the range lock with ranges that all overlap each other.

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import RangeLocks

/// All tests that block, or that look at the pool all locks share: one at a time.
@Suite(.serialized) struct LockTests {}

/// A hold that can be stored and given to other threads; `release` at most once.
final class Held: @unchecked Sendable {
  // Sendable: tests hand it over in ways that order the threads.
  private var hold: RangeHold?
  private let semaphore: SemaphoreBox?
  private var mode: LockMode

  init(_ hold: consuming RangeHold) {
    mode = hold.mode
    self.hold = consume hold
    semaphore = nil
  }

  init(_ semaphore: SemaphoreBox, _ mode: LockMode) {
    self.mode = mode
    self.semaphore = semaphore
  }

  func release() {
    hold = nil
    semaphore?.pointer.pointee.unlock(mode)
  }

  func downgrade() {
    hold?.downgrade()
    semaphore?.pointer.pointee.downgrade()
    mode = .read
  }
}

/// A semaphore in memory that does not move.
final class SemaphoreBox: @unchecked Sendable {
  // Sendable: the pointer is immutable, what it points to is made for threads.
  let pointer: UnsafeMutablePointer<ReadWriteSemaphore>

  init() {
    pointer = .allocate(capacity: 1)
    pointer.initialize(to: ReadWriteSemaphore())
  }

  deinit {
    pointer.deinitialize(count: 1)
    pointer.deallocate()
  }
}

/// One contended thing: every two requests overlap.
final class LockUnderTest: Sendable {
  private let semaphore = SemaphoreBox()
  private let rangeLock: RangeLock?
  private let ranges: [KeyRange]
  private let turn = Atomic<Int>(0)

  /// The `n`th request takes `ranges[n % count]`; none: the semaphore.
  init(_ scenario: Scenario) {
    ranges = scenario.ranges
    rangeLock = ranges.isEmpty ? nil : makeLock(.init(granuleShift: 4))
  }

  private func nextRange() -> KeyRange {
    ranges[turn.wrappingAdd(1, ordering: .relaxed).oldValue % ranges.count]
  }

  func lock(_ mode: LockMode, deadline: UInt64 = .max) -> Held? {
    if let rangeLock {
      guard let hold = rangeLock.lock(over: nextRange(), mode, deadline: deadline) else {
        return nil
      }
      return Held(hold)
    }
    return semaphore.pointer.pointee.lock(mode, deadline: deadline) ? Held(semaphore, mode) : nil
  }

  func tryLock(_ mode: LockMode) -> Held? {
    if let rangeLock {
      guard let hold = rangeLock.tryLock(over: nextRange(), mode) else { return nil }
      return Held(hold)
    }
    return semaphore.pointer.pointee.tryLock(mode) ? Held(semaphore, mode) : nil
  }

  /// Requests that wait now.
  var waiters: Int { rangeLock?.waiterCount ?? semaphore.pointer.pointee.queuedCount() }

  /// Returns when `count` requests wait.
  func awaitWaiters(_ count: Int) { waitUntil { self.waiters == count } }
}

/// A named choice of ranges.
struct Scenario: CustomTestStringConvertible, Sendable {
  let name: String
  let ranges: [KeyRange]
  var testDescription: String { name }

  // Granules have 16 keys at the lowest level, 256 at the next, and so on.
  static let all: [Scenario] = [
    Scenario(name: "semaphore", ranges: []),
    Scenario(name: "one narrow range", ranges: [KeyRange(3...9)]),
    Scenario(name: "two granules of the lowest level", ranges: [KeyRange(12...20)]),
    Scenario(name: "narrow behind wide", ranges: [KeyRange(0...2000), KeyRange(40...41)]),
    Scenario(name: "wide behind narrow", ranges: [KeyRange(40...41), KeyRange(0...2000)]),
    Scenario(
      name: "three levels, two granules each",
      ranges: [KeyRange(250...260), KeyRange(200...300), KeyRange(10...4100)]),
    Scenario(name: "whole behind narrow", ranges: [KeyRange(7...7), .all]),
    Scenario(name: "narrow behind whole", ranges: [.all, KeyRange((UInt64.max - 3)...)]),
  ]
}

extension RangeLock {
  /// Whether a try succeeds now; lets go at once.
  func isFree(over range: KeyRange, _ mode: LockMode) -> Bool {
    guard let hold = tryLock(over: range, mode) else { return false }
    hold.release()
    return true
  }
}

/// Runs `body` on a thread of its own: what blocks, in a test that is a task.
func onThread(_ body: @escaping @Sendable () -> Void) { TestThread(body).join() }

/// Yields until `condition` holds. The test's watchdog bounds it.
func waitUntil(_ condition: () -> Bool) {
  while !condition() { rl_yield() }
}

/// The order in which things happened, written by several threads.
final class Journal: @unchecked Sendable {
  // Sendable: `lines` is protected by `latch`.
  private let latch = Latch()
  private var lines: [String] = []

  func note(_ line: String) {
    latch.lock()
    lines.append(line)
    latch.unlock()
  }

  var all: [String] {
    latch.lock()
    defer { latch.unlock() }
    return lines
  }
}

/// A thread that asks for a lock, notes when it has it, and keeps it until it is told to let go.
final class Contender: Sendable {
  private final class State: Sendable {
    let holds = Atomic<Bool>(false)
    let mayRelease = Atomic<Bool>(false)
  }

  private let state: State
  private let thread: TestThread

  init(_ lock: LockUnderTest, _ mode: LockMode, _ name: String = "", in journal: Journal? = nil) {
    let state = State()
    self.state = state
    thread = TestThread {
      let held = lock.lock(mode)!
      journal?.note(name)
      state.holds.store(true, ordering: .releasing)
      waitUntil { state.mayRelease.load(ordering: .acquiring) }
      held.release()
    }
  }

  var holds: Bool { state.holds.load(ordering: .acquiring) }

  /// Returns when the lock was granted.
  func awaitHold() { waitUntil { self.holds } }

  /// Lets the thread release, and ends it.
  func finish() {
    state.mayRelease.store(true, ordering: .releasing)
    thread.join()
  }
}
