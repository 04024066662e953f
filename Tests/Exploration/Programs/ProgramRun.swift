// SPDX-License-Identifier: Apache-2.0
//
// Runs the steps of a program on the engine's threads, with the checks around them.
//
// Nothing here is counted or allocated while a thread runs: a thread may be dropped at any operation.

import CExplorer
import ExploredRangeLocks

/// A program made ready: its lock, its steps as plain memory, its checker.
final class ProgramRun {
  let program: ExploredProgram
  let checker: Checker
  let lock: RangeLock
  let semaphore: UnsafeMutablePointer<ReadWriteSemaphore>
  private let holds: UnsafeMutablePointer<RangeHold>
  private let groups: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  private let pieces: UnsafeMutablePointer<RangeRequest>
  /// What the runtime would know of the tasks, by request.
  private let tasks: UnsafeMutableRawPointer
  private let steps: [UnsafeMutableBufferPointer<Step>]
  private let stepsOfThread: UnsafeMutablePointer<UnsafeMutableBufferPointer<Step>>

  /// A deadline that passes only when the schedule says so.
  private static let deadline: UInt64 = 1000

  /// Empties the arena and makes the lock in it, in the state that the preparation leaves.
  init(_ program: ExploredProgram) {
    self.program = program
    rx_arena_reset()
    // In the arena: what the checker knows is part of a state.
    let records = rx_reserve(32 * MemoryLayout<RequestRecord>.stride)!
    checker = Checker(
      records: records.bindMemory(to: RequestRecord.self, capacity: 32),
      count: program.requestCount,
      isStrict: program.subject != .semaphore,
      mostPasses: program.subject == .throughput ? RangeLock.Fairness.mostPasses : 0)
    holds = rx_reserve(32 * MemoryLayout<RangeHold>.stride)!
      .bindMemory(to: RangeHold.self, capacity: 32)
    groups = rx_reserve(32 * 8)!.bindMemory(to: UnsafeMutableRawPointer?.self, capacity: 32)
    pieces = rx_reserve(32 * MemoryLayout<RangeRequest>.stride)!
      .bindMemory(to: RangeRequest.self, capacity: 32)
    tasks = rx_reserve(32 * ExploredTask.size)!
    lock = RangeLock(
      configuration: .init(
        granuleShift: Keys.granuleShift, usesWholeLockMode: program.subject == .lock,
        fairness: program.subject == .throughput ? .throughput : .firstComeFirstServed))
    semaphore = rx_reserve(MemoryLayout<ReadWriteSemaphore>.size)!
      .bindMemory(to: ReadWriteSemaphore.self, capacity: 1)
    semaphore.initialize(to: ReadWriteSemaphore())
    steps = program.threads.map { steps in
      let copy = UnsafeMutableBufferPointer<Step>.allocate(capacity: steps.count)
      _ = copy.initialize(from: steps)
      return copy
    }
    stepsOfThread = .allocate(capacity: 4)
    for (thread, copy) in steps.enumerated() { (stepsOfThread + thread).initialize(to: copy) }
    for thread in 0..<UInt32(program.threads.count) { Inspection.warmPool(thread) }
    checker.reset()
    for step in program.preparation { perform(step, thread: 0) }
  }

  deinit {
    for copy in steps { copy.deallocate() }
    stepsOfThread.deallocate()
  }

  // MARK: What the engine calls

  func body(_ thread: UInt32) {
    let steps = stepsOfThread[Int(thread)]
    for index in 0..<steps.count {
      rx_clean_stack()
      perform(steps[index], thread: thread)
    }
  }

  func end() {
    checker.finish()
    switch program.subject {
    case .lock, .directory, .throughput:
      if !Inspection.isEmpty(lock) { rx_fail("leftover: the lock is not empty at the end") }
      if lock.holdCount + lock.waiterCount != 0 { rx_fail("leftover: requests at the end") }
      if !Inspection.isObservedAsSwitched(lock) {
        rx_fail("leftover: the lock is observed and nobody wants it to be, or the other way around")
      }
      let blocks = Inspection.blocksInUse
      if blocks != 0 { rx_fail("leftover: \(blocks) blocks are not back in the pool") }
    case .semaphore:
      let word = Inspection.word(semaphore)
      if word != 0 { rx_fail("leftover: the semaphore's word is \(word) at the end") }
      if semaphore.pointee.queuedCount() != 0 { rx_fail("leftover: a queue at the end") }
    }
  }

  // MARK: Steps

  @inline(never)
  private func perform(_ step: Step, thread: UInt32) {
    switch step.verb {
    case .lock, .tryLock, .lockWithin:
      checker.begins(step, thread: thread)
      if let second = step.second {
        checker.begins(second, thread: thread)
        checker.arePartners(step.request, second.request)
      }
      let isGranted =
        program.subject == .semaphore
        ? acquireSemaphore(step) : step.secondMode < 0 ? acquire(step) : acquireGroup(step)
      finish(step, isGranted)
      if let second = step.second { finish(second, isGranted) }
    case .release:
      guard checker.records[step.request].state == .holding else { return }
      release(step.request)
    case .downgrade, .upgrade, .tryUpgrade, .upgradeWithin, .shrink:
      guard checker.records[step.request].state == .holding else { return }
      change(step)
    case .enterWhole: Inspection.enterWhole(lock)
    case .sample: Inspection.makeSampleDue(thread)
    case .observe: Inspection.observe(lock, true)
    case .unobserve: Inspection.observe(lock, false)
    case .cancel:
      checker.records[step.request].mayBeGone = true
      task(step).cancel()
    case .ring:
      for request in 0..<program.requestCount { checker.records[request].mayBeGone = true }
      Inspection.ringAlarms()
    }
  }

  private func finish(_ step: Step, _ isGranted: Bool) {
    if isGranted {
      checker.granted(step.request)
      rx_touch(step.keys, step.mode == 2)
    } else {
      checker.ends(step.request, step.verb == .tryLock ? .refused : .gaveUp)
    }
  }

  private func release(_ request: Int) {
    let partners = checker.records[request].partners
    checker.ends(request, .releasing)
    for other in 0..<program.requestCount where partners >> UInt32(other) & 1 != 0 {
      checker.ends(other, .releasing)
    }
    if program.subject == .semaphore {
      semaphore.pointee.unlock(checker.records[request].mode == 2 ? .write : .read)
    } else if partners != 0 {
      let group = groups[request]
      groups[request] = nil
      Inspection.releaseGroup(lock, group!)
    } else {
      let hold = (holds + request).move()
      // What is gone is no part of a state.
      UnsafeMutableRawPointer(holds + request)
        .initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<RangeHold>.size)
      hold.release()
    }
    checker.ends(request, .ended)
    for other in 0..<program.requestCount where partners >> UInt32(other) & 1 != 0 {
      checker.ends(other, .ended)
    }
  }

  /// Another mode, or fewer keys.
  private func change(_ step: Step) {
    let me = step.request
    switch step.verb {
    case .upgrade, .tryUpgrade, .upgradeWithin:
      checker.upgrades(me)
      var isWriter = true
      let deadline = step.verb == .upgradeWithin ? Self.deadline : .max
      if step.isTask {
        isWriter = Inspection.upgradeAsTask(lock, holds[me], deadline: deadline, task(step))
      } else if step.verb == .upgrade {
        holds[me].upgrade()
      } else if step.verb == .upgradeWithin {
        isWriter = holds[me].upgrade(deadline: deadline)
      } else {
        isWriter = holds[me].tryUpgrade()
      }
      if isWriter { checker.upgraded(me) } else { checker.changed(me) }
    case .shrink:
      checker.changes(me, mode: checker.records[me].mode, keys: step.keys)
      holds[me].shrink(to: range(step.firstKey, step.lastKey))
      checker.changed(me)
    default:
      checker.changes(me, mode: 0, keys: checker.records[me].keys)
      if program.subject == .semaphore {
        semaphore.pointee.downgrade()
      } else {
        holds[me].downgrade()
      }
      checker.changed(me)
    }
    rx_touch(checker.records[me].keys, checker.records[me].mode == 2)
  }

  /// The range, by the initialiser that a user would take.
  private func range(_ firstKey: Int, _ lastKey: Int) -> KeyRange {
    if firstKey == 7 { return KeyRange(first: .max, last: .max) }
    return lastKey == 7
      ? KeyRange(Keys.first(firstKey)...)
      : KeyRange(Keys.first(firstKey)..<Keys.last(lastKey) + 1)
  }

  /// Both ranges; the pieces are written where they outlive the thread.
  private func acquireGroup(_ step: Step) -> Bool {
    let start = pieces + step.request
    start.initialize(
      to: RangeRequest(range(step.firstKey, step.lastKey), LockMode(rawValue: step.mode)!))
    (start + 1).initialize(
      to: RangeRequest(
        range(step.secondFirstKey, step.secondLastKey),
        LockMode(rawValue: UInt8(step.secondMode))!))
    let both = UnsafeBufferPointer(start: start, count: 2)
    if step.isTask {
      let deadline = step.verb == .lockWithin ? Self.deadline : .max
      groups[step.request] = Inspection.lockGroupAsTask(
        lock, both, deadline: deadline, task(step))
      return groups[step.request] != nil
    }
    groups[step.request] =
      switch step.verb {
      case .tryLock: Inspection.tryGroup(lock, both)
      case .lockWithin: Inspection.lockGroup(lock, both, deadline: Self.deadline)
      default: Inspection.lockGroup(lock, both, deadline: .max)
      }
    return groups[step.request] != nil
  }

  private func acquire(_ step: Step) -> Bool {
    let range = range(step.firstKey, step.lastKey)
    let mode = LockMode(rawValue: step.mode)!
    if step.isTask {
      let deadline = step.verb == .lockWithin ? Self.deadline : .max
      return keep(
        Inspection.lockAsTask(lock, range, mode, deadline: deadline, task(step)), step.request)
    }
    switch step.verb {
    case .tryLock: return keep(lock.tryLock(over: range, mode), step.request)
    case .lockWithin:
      return keep(lock.lock(over: range, mode, deadline: Self.deadline), step.request)
    default: return keep(lock.lock(over: range, mode), step.request)
    }
  }

  private func task(_ step: Step) -> ExploredTask {
    ExploredTask(tasks + step.request * ExploredTask.size)
  }

  private func keep(_ hold: consuming RangeHold?, _ request: Int) -> Bool {
    guard let hold = hold.take() else { return false }
    (holds + request).initialize(to: hold)
    return true
  }

  private func acquireSemaphore(_ step: Step) -> Bool {
    let mode = step.mode == 2 ? LockMode.write : .read
    switch step.verb {
    case .tryLock: return semaphore.pointee.tryLock(mode)
    case .lockWithin: return semaphore.pointee.lock(mode, deadline: Self.deadline)
    default:
      semaphore.pointee.lock(mode)
      return true
    }
  }
}
