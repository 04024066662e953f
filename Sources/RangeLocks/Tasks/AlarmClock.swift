// SPDX-License-Identifier: Apache-2.0
//
// Deadlines of tasks that wait.
//
// Guarantee: an alarm rings at its deadline or soon after, unless it was stopped; at most one of its alarm and its
// cancellation takes a request back, and after `stop` neither touches it.
// Mechanism: a tree of alarms by deadline under one latch for the process; a thread, started by the first alarm, sleeps
// until the earliest. An alarm is a block of the lock's pool that looks like an entry, whose keys are the time.
// Cost: a thread, once a task waits with a deadline; for each such wait a block and two changes of the tree.
// Lock order inside: the clock's latch is a leaf. Above all, no task is resumed under it: a cancellation handler, which takes
// it, runs under a lock of the runtime that resuming its task takes, too.

import CRangeland
import Synchronization

/// A deadline of one request. The block belongs to the task that waits.
struct Alarm: @unchecked Sendable {
  // Sendable: an address; what is there is protected by the clock's latch.
  let raw: UnsafeMutableRawPointer

  fileprivate var entry: EntryRef { EntryRef(raw) }

  /// What waits, and where.
  fileprivate var target: UnsafeMutablePointer<(EntryRef, Directory)> {
    (raw + 80).assumingMemoryBound(to: (EntryRef, Directory).self)
  }

  /// Whether it is in the clock: nobody has taken the request back. Protected by the clock's latch.
  fileprivate var isSet: UnsafeMutablePointer<Bool> {
    (raw + 96).assumingMemoryBound(to: Bool.self)
  }

  /// 1 while it rings. Set under the clock's latch; cleared, releasing, by who rings.
  fileprivate var isRinging: UnsafeMutablePointer<Atomic<UInt32>> {
    (raw + 100).assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  fileprivate var isRingingAddress: UnsafeMutablePointer<UInt32> {
    (raw + 100).assumingMemoryBound(to: UInt32.self)
  }
}

/// The handle. Its memory is never freed.
struct AlarmClock: @unchecked Sendable {
  // Sendable: an immutable address; what is there is atomic or latched.
  private let raw: UnsafeMutableRawPointer

  static let shared = AlarmClock()

  private init() {
    guard let raw = rl_reserve(4 * nodeStride) else {
      fatalError("RangeLocks: no address space for \(4 * nodeStride) bytes of deadlines")
    }
    self.raw = raw
  }

  private var latch: UnsafeMutablePointer<Latch> { raw.assumingMemoryBound(to: Latch.self) }

  /// The alarms that are set, by deadline. Protected by the latch.
  private var alarms: UnsafeMutablePointer<IntervalTree> {
    (raw + nodeStride).assumingMemoryBound(to: IntervalTree.self)
  }

  /// Whether the thread runs. Protected by the latch.
  private var isRunning: UnsafeMutablePointer<Bool> {
    (raw + 2 * nodeStride).assumingMemoryBound(to: Bool.self)
  }

  /// Changes when there is an earlier alarm; the thread sleeps on it.
  private var changes: UnsafeMutablePointer<Atomic<UInt32>> {
    (raw + 3 * nodeStride).assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  private var changesAddress: UnsafeMutablePointer<UInt32> {
    (raw + 3 * nodeStride).assumingMemoryBound(to: UInt32.self)
  }

  // MARK: Alarms

  /// An alarm to set later; nil when the system has no memory for it, or for the thread, now.
  func makeAlarm(_ pool: NodePool) -> Alarm? {
    latch.pointee.lock()
    if !isRunning.pointee {
      isRunning.pointee = rl_start_thread({ _ in AlarmClock.shared.run() }, nil) == 0
    }
    let isRunning = isRunning.pointee
    latch.pointee.unlock()
    return isRunning ? pool.take().map(Alarm.init) : nil
  }

  /// Takes `waiter` back at `deadline`.
  func set(_ alarm: Alarm, _ deadline: UInt64, _ waiter: EntryRef, _ directory: Directory) {
    let keys = KeyRange(uncheckedFirst: deadline, last: deadline)
    alarm.entry.initialize(keys, .write, token: 0)
    alarm.target.initialize(to: (waiter, directory))
    alarm.isSet.initialize(to: true)
    alarm.isRinging.pointee.store(0, ordering: .relaxed)
    latch.pointee.lock()
    alarms.pointee.insert(alarm.entry.link0, alarm.entry)
    let isFirst = earliest == alarm.entry
    latch.pointee.unlock()
    if isFirst {
      // Relaxed: the thread finds the alarm under the latch.
      changes.pointee.wrappingAdd(1, ordering: .relaxed)
      _ = rl_futex_wake(changesAddress, 1)
    }
  }

  /// The task is cancelled: takes the request back unless the alarm has.
  func giveUp(_ alarm: Alarm) {
    latch.pointee.lock()
    let isOurs = remove(alarm)
    latch.pointee.unlock()
    // The task does not leave the scope of the handler, which we are in, nor stop the alarm before.
    if isOurs { takeBack(alarm) }
  }

  /// Returns when nobody is taking the request back, nor will. Waits for a ring that has begun.
  func stop(_ alarm: Alarm) {
    latch.pointee.lock()
    _ = remove(alarm)
    latch.pointee.unlock()
    // Acquires what the ringing thread did.
    while alarm.isRinging.pointee.load(ordering: .acquiring) != 0 {
      _ = rl_futex_wait(alarm.isRingingAddress, 1, .max)
    }
  }

  private func takeBack(_ alarm: Alarm) {
    let (waiter, directory) = alarm.target.pointee
    directory.takeBackSuspended(waiter)
  }

  /// Takes the request back at its deadline. The task may go on in the middle of it, and waits in `stop`.
  private func ring(_ alarm: Alarm) {
    takeBack(alarm)
    alarm.isRinging.pointee.store(0, ordering: .releasing)
    // The block may be another's by now: only its address is used, as in `EntryRef.granted`.
    _ = rl_futex_wake(alarm.isRingingAddress, 1)
  }

  /// False if it is not set any more. Needs the latch.
  private func remove(_ alarm: Alarm) -> Bool {
    if !alarm.isSet.pointee { return false }
    alarm.isSet.pointee = false
    alarms.pointee.remove(alarm.entry.link0)
    return true
  }

  /// Needs the latch.
  private var earliest: EntryRef? {
    var first: EntryRef?
    alarms.pointee.forEach(overlapping: .all) { alarm in
      first = alarm
      return false
    }
    return first
  }

  // MARK: The thread

  /// Rings all alarms up to `now`; the deadline of the next one, UInt64.max if there is none.
  func ring(upTo now: UInt64) -> UInt64 {
    while true {
      latch.pointee.lock()
      guard let first = earliest, first.range.first <= now else {
        let next = earliest.map { $0.range.first } ?? .max
        latch.pointee.unlock()
        return next
      }
      let alarm = Alarm(raw: first.raw)
      _ = remove(alarm)
      alarm.isRinging.pointee.store(1, ordering: .relaxed)
      latch.pointee.unlock()
      ring(alarm)
    }
  }

  private func run() {
    while true {
      // Before the look at the alarms: one that is set after it changes the word.
      let seen = changes.pointee.load(ordering: .relaxed)
      let next = ring(upTo: rl_monotonic_ns())
      _ = rl_futex_wait(changesAddress, seen, next)
    }
  }
}
