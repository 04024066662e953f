// SPDX-License-Identifier: Apache-2.0
//
// What a simulated thread does next.

import Rangeland

extension Simulator {
  /// A thread begins.
  mutating func begin(_ thread: Int) {
    at(thread).pointee.spanStart = now
    enterStep(thread, onProcessor: false)
  }

  /// The event of a thread has come.
  mutating func happen(_ thread: Int) {
    let state = at(thread)
    if state.pointee.isWaking {
      state.pointee.isWaking = false
      makeReady(thread)
      return
    }
    switch state.pointee.phase {
    case .pausing:
      endPause(thread)
    case .thinking:
      if hasRun(thread) { arrive(thread) }
    case .holding:
      if hasRun(thread) { endHold(thread) }
    case .polling:
      busyNanoseconds &+= now &- state.pointee.since
      pollEstimate = (pollEstimate &* 7 &+ state.pointee.remaining / settings.poll) / 8
      state.pointee.phase = .spinning
      spin(thread)
      lock.queue(thread)
      deliver()
    case .spinning:
      busyNanoseconds &+= now &- state.pointee.since
      state.pointee.phase = .parked
      leaveProcessor(thread)
    case .handed:
      busyNanoseconds &+= now &- state.pointee.since
      proceed(thread)
      deliver()
    case .unborn, .ordered, .parked, .ended: break
    }
  }

  /// A thread has got a processor: it goes on where it stood.
  mutating func resume(_ thread: Int) {
    let state = at(thread)
    switch state.pointee.phase {
    case .thinking:
      mark(thread, .running)
      runOn(thread)
    case .holding:
      mark(thread, holdSpan(thread))
      runOn(thread)
    case .parked:
      state.pointee.phase = .spinning
      if state.pointee.isGranted {
        state.pointee.isGranted = false
        state.pointee.isInvited = false
        proceed(thread)
      } else {
        lookAgain(thread)
      }
    case .ordered: arrive(thread)
    case .unborn, .pausing, .polling, .spinning, .handed, .ended: break
    }
  }

  // MARK: steps

  /// Begins the present step.
  mutating func enterStep(_ thread: Int, onProcessor: Bool) {
    let state = at(thread)
    if state.pointee.step == state.pointee.end {
      mark(thread, .absent)
      state.pointee.phase = .ended
      state.pointee.event = 0
      ended &+= 1
      lastEnd = now
      if onProcessor { leaveProcessor(thread) }
      return
    }
    let step = state.pointee.step
    var think = UInt64(step.pointee.think)
    let kind = step.pointee.kind
    if kind == .pause || kind == .work { think &+= step.pointee.nanoseconds }
    if kind == .pause || thinksOffProcessor {
      mark(thread, .pausing)
      state.pointee.phase = .pausing
      if onProcessor { leaveProcessor(thread) }
      schedule(thread, after: think)
      return
    }
    state.pointee.phase = .thinking
    state.pointee.remaining = think
    if !onProcessor {
      makeReady(thread)
    } else if think == 0 && kind == .operation {
      arrive(thread)
    } else {
      mark(thread, .running)
      runOn(thread)
    }
  }

  /// A pause is over.
  private mutating func endPause(_ thread: Int) {
    let state = at(thread)
    let kind = state.pointee.step.pointee.kind
    if kind == .pause || kind == .work {
      finishStep(thread, onProcessor: false)
      return
    }
    // What follows is done on a processor.
    state.pointee.phase = .thinking
    state.pointee.remaining = 0
    makeReady(thread)
  }

  /// The time before the step has passed, and the thread has a processor.
  mutating func arrive(_ thread: Int) {
    let state = at(thread)
    let step = state.pointee.step
    if step.pointee.dependency != SimulationStep.noDependency, !isDue(thread, step) {
      return
    }
    if state.pointee.phase == .ordered {
      orderNanoseconds &+= now &- state.pointee.waitingSince
      state.pointee.phase = .thinking
    }
    switch step.pointee.kind {
    case .operation: request(thread, step)
    case .spawn:
      begin(step.pointee.thread)
      finishStep(thread, onProcessor: true)
    case .work, .pause: finishStep(thread, onProcessor: true)
    }
  }

  private mutating func request(_ thread: Int, _ step: UnsafePointer<SimulationStep>) {
    let state = at(thread)
    if lock.request(thread, step.pointee, now: now) {
      hold(thread)
      return
    }
    markWaiting(thread, Int32(thread))
    state.pointee.since = now
    if lock.usesRanges {
      state.pointee.phase = .spinning
      schedule(thread, after: Self.pollLimit / 2 &* settings.poll)
    } else if settings.readersSleep && !step.pointee.writes {
      state.pointee.phase = .spinning
      schedule(thread, after: 0)
      lock.queue(thread)
      deliver()
    } else {
      // `ReadWriteSemaphore.poll`: as long as polling brought something before.
      let polls = min(Self.pollLimit, 2 &* pollEstimate &+ 10)
      state.pointee.phase = .polling
      state.pointee.remaining = polls &* settings.poll
      schedule(thread, after: state.pointee.remaining)
    }
  }

  private mutating func spin(_ thread: Int) {
    at(thread).pointee.since = now
    schedule(thread, after: Self.pollLimit &* settings.poll)
  }

  /// The thread has the lock; a writer of `.perVMA` locks words first.
  private mutating func hold(_ thread: Int) {
    let state = at(thread)
    let step = state.pointee.step
    if lock.policy == .perVMA, step.pointee.writes, !lock.lockCells(thread, now: now) {
      state.pointee.waitsForWord = true
      markWaiting(thread, Int32(thread + threadCount))
      state.pointee.phase = .spinning
      spin(thread)
      return
    }
    state.pointee.phase = .holding
    let length = UInt64(step.pointee.hold)
    if step.pointee.downgrade != 0, !lock.usesRanges {
      state.pointee.willDowngrade = true
      state.pointee.remaining = length &* step.pointee.downgrade >> 12
    } else {
      state.pointee.willDowngrade = false
      state.pointee.remaining = length
    }
    if traces { mark(thread, holdSpan(thread)) }
    runOn(thread)
  }

  private mutating func endHold(_ thread: Int) {
    let state = at(thread)
    let step = state.pointee.step
    if state.pointee.willDowngrade {
      state.pointee.willDowngrade = false
      lock.downgrade(thread, step.pointee, now: now)
      let length = UInt64(step.pointee.hold)
      state.pointee.remaining = length &- length &* step.pointee.downgrade >> 12
      runOn(thread)
      deliver()
      return
    }
    lock.release(thread, step.pointee, now: now)
    deliver()
    finishStep(thread, onProcessor: true)
  }

  /// The step is done; the next one begins.
  private mutating func finishStep(_ thread: Int, onProcessor: Bool) {
    let state = at(thread)
    if state.pointee.step.pointee.counts {
      state.pointee.done &+= 1
      if state.pointee.firstDependent >= 0 { wakeDependents(thread) }
    }
    state.pointee.step += 1
    enterStep(thread, onProcessor: onProcessor)
  }

  // MARK: waits

  /// Tells threads what the lock's last move brought them.
  mutating func deliver() {
    var index = 0
    // A thread that goes on may make the lock move again: its signals come behind.
    while index < lock.signalCount {
      let word = lock.signals[index]
      index += 1
      let thread = Int(word >> 1)
      let state = at(thread)
      if word & 1 == UInt32(LockSignal.granted.rawValue) {
        state.pointee.isGranted = true
      } else {
        state.pointee.isInvited = true
      }
      switch state.pointee.phase {
      case .polling, .spinning:
        if state.pointee.isGranted {
          state.pointee.isGranted = false
          state.pointee.isInvited = false
          busyNanoseconds &+= now &- state.pointee.since
          if state.pointee.phase == .polling {
            let polls = (now &- state.pointee.since) / settings.poll
            pollEstimate = (pollEstimate &* 7 &+ polls) / 8
          }
          if handover == 0 {
            proceed(thread)
          } else {
            state.pointee.since = now
            state.pointee.phase = .handed
            schedule(thread, after: handover)
          }
        } else {
          state.pointee.isInvited = false
          busyNanoseconds &+= now &- state.pointee.since
          spin(thread)
          lock.lookAgain(thread)
        }
      case .parked:
        if !state.pointee.isWaking && !state.pointee.isReady {
          state.pointee.isWaking = true
          schedule(thread, after: wake)
        }
      default: preconditionFailure("a simulated thread that does not wait is told about its lock")
      }
    }
    lock.signalCount = 0
  }

  /// The thread runs and has the lock.
  private mutating func proceed(_ thread: Int) {
    let state = at(thread)
    if state.pointee.waitsForWord {
      state.pointee.waitsForWord = false
      lock.proceedWithCells(thread, now: now)
      if hasChains { noteChain(thread, Int32(thread + threadCount)) }
    } else {
      lock.proceed(Int32(thread), now: now)
      if hasChains { noteChain(thread, Int32(thread)) }
    }
    hold(thread)
  }

  /// The thread runs, and was told to try again.
  private mutating func lookAgain(_ thread: Int) {
    at(thread).pointee.isInvited = false
    spin(thread)
    lock.lookAgain(thread)
    deliver()
  }

  // MARK: order

  /// Whether the steps that come before are done; otherwise the thread waits for the first that is not.
  private mutating func isDue(_ thread: Int, _ step: UnsafePointer<SimulationStep>) -> Bool {
    var index = Int(step.pointee.dependency)
    while true {
      let word = dependencies[index]
      let other = Int(word >> 32 & 0x7fff_ffff)
      if at(other).pointee.done < UInt32(truncatingIfNeeded: word) {
        let state = at(thread)
        if state.pointee.phase != .ordered {
          state.pointee.waitingSince = now
          state.pointee.phase = .ordered
        }
        mark(thread, .ordered)
        state.pointee.nextDependent = at(other).pointee.firstDependent
        at(other).pointee.firstDependent = Int32(thread)
        leaveProcessor(thread)
        return false
      }
      if word >> 63 != 0 { return true }
      index &+= 1
    }
  }

  private mutating func wakeDependents(_ thread: Int) {
    var next = at(thread).pointee.firstDependent
    at(thread).pointee.firstDependent = -1
    while next >= 0 {
      let dependent = Int(next)
      next = at(dependent).pointee.nextDependent
      at(dependent).pointee.nextDependent = -1
      makeReadyToArrive(dependent)
    }
  }

  /// A step that the thread waits for was done: it looks again, on a processor.
  private mutating func makeReadyToArrive(_ thread: Int) {
    // The time in the queue is time for want of a processor.
    orderNanoseconds &+= now &- at(thread).pointee.waitingSince
    at(thread).pointee.waitingSince = now
    let step = at(thread).pointee.step
    if isDueNow(step) {
      at(thread).pointee.phase = .thinking
      at(thread).pointee.remaining = 0
      makeReady(thread)
    } else {
      waitForFirst(thread, step)
    }
  }

  private func isDueNow(_ step: UnsafePointer<SimulationStep>) -> Bool {
    var index = Int(step.pointee.dependency)
    while true {
      let word = dependencies[index]
      if at(Int(word >> 32 & 0x7fff_ffff)).pointee.done < UInt32(truncatingIfNeeded: word) {
        return false
      }
      if word >> 63 != 0 { return true }
      index &+= 1
    }
  }

  /// Goes to the list of the first thread whose steps are still missing.
  private func waitForFirst(_ thread: Int, _ step: UnsafePointer<SimulationStep>) {
    var index = Int(step.pointee.dependency)
    while true {
      let word = dependencies[index]
      let other = Int(word >> 32 & 0x7fff_ffff)
      if at(other).pointee.done < UInt32(truncatingIfNeeded: word) {
        at(thread).pointee.nextDependent = at(other).pointee.firstDependent
        at(other).pointee.firstDependent = Int32(thread)
        return
      }
      index &+= 1
    }
  }

  // MARK: trace

  private func holdSpan(_ thread: Int) -> SimulationTrace.Span {
    .holding(operation: at(thread).pointee.step.pointee.operation)
  }

  @inline(__always)
  private mutating func markWaiting(_ thread: Int, _ place: Int32) {
    if !traces { return }
    let request = lock.at(place)
    let ahead = request.pointee.ahead
    mark(
      thread,
      .waiting(
        operation: request.pointee.operation,
        ahead: ahead < 0 ? nil : Int(lock.thread(of: ahead)),
        aheadOperation: request.pointee.firstAhead, isFalse: !request.pointee.isConflict))
  }
}
