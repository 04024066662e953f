// SPDX-License-Identifier: Apache-2.0
//
// Tasks in the explored copy: what waits is a thread of the explorer, in the place of a continuation and of the runtime.
//
// The lock's own are: asking, leaving the continuation (`prepareToSuspend`), resuming it, taking a request back for a
// cancellation or an alarm, alarms. Ours are what the language's runtime does: a task sleeps until its continuation is resumed,
// which happens once; a cancellation handler runs at once if the task is cancelled already, otherwise on the
// thread that cancels, and ends before the task leaves its scope. And the bodies of the `async` functions, which only
// put these together.

import CExplorer

/// Hides the language's continuation: a word that the explorer's thread sleeps on.
struct UnsafeContinuation<Value, Failure: Error>: @unchecked Sendable {
  // Sendable: the word is used through atomic operations and futexes.
  let word: UnsafeMutablePointer<Atomic<UInt32>>
}

extension UnsafeContinuation where Value == Bool, Failure == Never {
  /// `isForgotten`: a mistake.
  func resume(returning value: Bool, unless isForgotten: Bool = false) {
    if isForgotten { return }
    if word.pointee.exchange(value ? 1 : 2, ordering: .acquiringAndReleasing) != 0 {
      rx_fail("a continuation is resumed twice")
    }
    _ = rl_futex_wake(UnsafeMutableRawPointer(word).assumingMemoryBound(to: UInt32.self), 1)
  }
}

/// Hides the language's function, which nobody calls: tasks cannot run on the explorer's coroutines.
func withUnsafeContinuation(
  _ body: (UnsafeContinuation<Bool, Never>) -> Void
) async -> Bool {
  fatalError("tasks are not explored as such")
}

/// What the runtime knows of one request's task: 64 bytes of the arena, zeroed.
public struct ExploredTask: @unchecked Sendable {
  // Sendable: an address; what is there is atomic, or written before and read after an atomic operation.
  let raw: UnsafeMutableRawPointer

  public static var size: Int { 64 }
  public init(_ raw: UnsafeMutableRawPointer) { self.raw = raw }

  /// States of `scope`, of the cancellation handler.
  private static let outside: UInt32 = 0
  private static let inside: UInt32 = 1
  private static let cancelled: UInt32 = 2
  private static let handling: UInt32 = 3

  /// 0 while suspended, 1 granted, 2 given up.
  private var result: UnsafeMutablePointer<Atomic<UInt32>> {
    raw.assumingMemoryBound(to: Atomic<UInt32>.self)
  }
  private var scope: UnsafeMutablePointer<Atomic<UInt32>> {
    (raw + 4).assumingMemoryBound(to: Atomic<UInt32>.self)
  }
  private var target: UnsafeMutablePointer<(EntryRef, Alarm?, Directory)> {
    (raw + 8).assumingMemoryBound(to: (EntryRef, Alarm?, Directory).self)
  }

  private func sleep(_ word: UnsafeMutablePointer<Atomic<UInt32>>, _ value: UInt32) {
    let address = UnsafeMutableRawPointer(word).assumingMemoryBound(to: UInt32.self)
    while word.pointee.load(ordering: .acquiring) == value {
      _ = rl_futex_wait(address, value, .max)
    }
  }

  /// As `Directory.suspend`, line for line.
  func suspend(
    _ directory: Directory, _ entry: EntryRef, deadline: UInt64, _ alarm: Alarm?
  ) -> Bool {
    if let alarm {
      if rl_monotonic_ns() >= deadline, directory.takeBack(entry) { return false }
      AlarmClock.shared.set(alarm, deadline, entry, directory)
    }
    result.pointee.store(0, ordering: .relaxed)
    target.initialize(to: (entry, alarm, directory))
    if scope.pointee.compareExchange(
      expected: Self.outside, desired: Self.inside, ordering: .acquiringAndReleasing
    ).original == Self.cancelled {
      directory.giveUpSuspended(entry, alarm)
    }
    var isGranted = directory.prepareToSuspend(entry, UnsafeContinuation(word: result))
    if isGranted == nil {
      sleep(result, 0)
      isGranted = result.pointee.load(ordering: .acquiring) == 1
    }
    if scope.pointee.compareExchange(
      expected: Self.inside, desired: Self.outside, ordering: .acquiringAndReleasing
    ).original == Self.handling {
      sleep(scope, Self.handling)
    }
    if let alarm { AlarmClock.shared.stop(alarm) }
    return isGranted!
  }

  /// Cancels the task.
  public func cancel() {
    while true {
      let old = scope.pointee.load(ordering: .acquiring)
      if old == Self.cancelled || old == Self.handling { return }
      let new = old == Self.outside ? Self.cancelled : Self.handling
      if !scope.pointee.compareExchange(
        expected: old, desired: new, ordering: .acquiringAndReleasing
      ).exchanged {
        continue
      }
      if new == Self.cancelled { return }
      let (entry, alarm, directory) = target.pointee
      directory.giveUpSuspended(entry, alarm)
      scope.pointee.store(Self.cancelled, ordering: .releasing)
      let address = UnsafeMutableRawPointer(scope).assumingMemoryBound(to: UInt32.self)
      _ = rl_futex_wake(address, 1)
      return
    }
  }
}

extension Inspection {
  /// Rings every alarm that is set.
  public static func ringAlarms() { _ = AlarmClock.shared.ring(upTo: .max) }

  private static func alarm(_ lock: RangeLock, _ deadline: UInt64) -> Alarm? {
    deadline == .max ? nil : AlarmClock.shared.makeAlarm(lock.directory.pool)
  }

  private static func give(_ alarm: Alarm?, _ lock: RangeLock) {
    if let alarm { lock.directory.pool.give(alarm.raw) }
  }

  /// As the asynchronous `RangeLock.lock(over:_:deadline:)`.
  public static func lockAsTask(
    _ lock: RangeLock, _ range: KeyRange, _ mode: LockMode, deadline: UInt64, _ task: ExploredTask
  ) -> RangeHold? {
    let directory = lock.directory
    if let entry = lock.acquireEasily(range, mode) {
      return RangeHold(entry: entry, directory: directory, CallSite())
    }
    let entry = EntryRef(directory.pool.take()!)
    let alarm = alarm(lock, deadline)
    if directory.ask(range, mode, entry) == .queued {
      wasQueued()
      let isGranted = task.suspend(directory, entry, deadline: deadline, alarm)
      give(alarm, lock)
      if !isGranted { return nil }
    } else {
      give(alarm, lock)
    }
    return RangeHold(entry: entry, directory: directory, CallSite())
  }

  /// As the asynchronous `RangeLock.lock(overAll:deadline:)`.
  public static func lockGroupAsTask(
    _ lock: RangeLock, _ pieces: UnsafeBufferPointer<RangeRequest>, deadline: UInt64,
    _ task: ExploredTask
  ) -> UnsafeMutableRawPointer? {
    let directory = lock.directory
    let group = directory.makeGroup(pieces)!
    let alarm = alarm(lock, deadline)
    defer { give(alarm, lock) }
    if directory.publishInDirectory(group, mayWait: true) == .granted { return group.raw }
    wasQueued()
    return task.suspend(directory, group.waiter, deadline: deadline, alarm) ? group.raw : nil
  }

  /// As the asynchronous `RangeHold.upgrade(deadline:)`.
  public static func upgradeAsTask(
    _ lock: RangeLock, _ hold: borrowing RangeHold, deadline: UInt64, _ task: ExploredTask
  ) -> Bool {
    let directory = lock.directory
    let entry = hold.entry
    if directory.upgradeEasily(entry) { return true }
    let alarm = alarm(lock, deadline)
    defer { give(alarm, lock) }
    let waiter = directory.makeUpgrade(of: entry)!
    if directory.upgradeOnce(entry, waiter) == .granted {
      waiter.recycle(directory.pool)
      return true
    }
    let isGranted = task.suspend(directory, waiter, deadline: deadline, alarm)
    if isGranted { directory.endUpgrade(entry, waiter) }
    return isGranted
  }
}
