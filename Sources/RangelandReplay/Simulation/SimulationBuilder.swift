// SPDX-License-Identifier: Apache-2.0
//
// A recording's own timing: what a thread did between its operations, and for how long each held the lock.
//
// Kept: time on a processor, and time blocked on something else than the lock. Taken out: waits for a processor and
//   waits for the kernel's lock. What it took to pass the lock on is measured (`PassingTimes`). A hold lasts as long as the recorded one; without it, as long as the call took, less
//   those waits; of faults only the beginning is recorded, so they take `SimulationSettings.fault`.
// Mechanism: driven by the planner, event by event in the order of each thread; a cursor follows the thread's scheduler
//   events and acquisitions.

import Rangeland

struct SimulationBuilder {
  /// Where a thread stands.
  struct Cursor {
    /// All before is accounted for.
    var time: UInt64
    var scheduling = 0
    var acquisition = 0
    /// The first of its calls and faults that has not begun.
    var nextEvent = 0
    var state = State.running
    /// Processor time since the last step.
    var think: UInt64 = 0
    /// What the last fault took, which the recording does not show.
    var debt: UInt64 = 0

    enum State { case running, ready, blocked }
  }

  /// What becomes of the time of a stretch.
  enum Use {
    /// Time of the program: pauses become steps.
    case program
    /// Time of a call or a hold: pauses belong to it.
    case call
    /// A wait for the lock: nothing of it stays.
    case wait
  }

  let recording: Recording
  let fault: UInt64
  let faultReach: UInt64
  private let hasSwitches: Bool
  var program: SimulationProgram
  var cursors: [Cursor]
  private var attributes: [SimulationProgram.Attributes: UInt32] = [:]
  private var lastObject: UInt32 = 1 << 24
  /// The steps of the event that is being placed, and what they wait for.
  private(set) var pending: [(step: ReplayStep, waits: [ReplayPlan.Dependency])] = []
  /// Of the call that is being placed: what it moves.
  private var move: (start: UInt64, move: SimulationMove)?
  /// Of the hold that is being placed: through which functions it was asked for.
  var chain: Int?

  init(_ recording: Recording, settings: SimulationSettings) {
    self.recording = recording
    fault = settings.fault
    faultReach = LockUse.faultReach(recording)
    hasSwitches = recording.info.eventClasses.contains(.switches)
    program = SimulationProgram(threads: recording.threads.count, chains: recording.chains)
    program.calibration = hasSwitches ? .full : .none
    program.recordedNanoseconds = recording.duration
    program.processors = recording.info.machine?.processors
    program.hasRecordedHolds = recording.info.eventClasses.contains(.acquisitions)
    program.passing = PassingTimes(recording)
    program.threadNames = recording.threads.map(\.beginning.name)
    cursors = recording.threads.map { Cursor(time: $0.beginning.time) }
    for (number, thread) in recording.threads.enumerated() {
      // One whose first event is its first turn was not running before.
      if let first = thread.scheduling.first,
        case .switchedIn = recording.scheduling[Int(first)].change
      {
        cursors[number].state = .ready
      } else if let first = thread.scheduling.first,
        case .woken = recording.scheduling[Int(first)].change
      {
        cursors[number].state = .blocked
      }
    }
  }

  // MARK: what the planner tells

  /// The mappings at the start.
  mutating func setUp(_ steps: [ReplayStep]) {
    for step in steps {
      program.areas.append((step.start, step.end, attributesIndex(of: step)))
    }
  }

  /// A thread that nobody started.
  mutating func addRoot(_ thread: Int) {
    program.roots.append(thread)
    let time = cursors[thread].time
    if time > 0 { program.steps.append(SimulationStep(.pause, nanoseconds: time), to: thread) }
  }

  /// `parent` starts `thread` where it stands.
  mutating func spawn(_ thread: Int, by parent: Int) {
    pass(parent, until: cursors[thread].time, .program)
    var step = SimulationStep(spawning: thread)
    step.counts = true
    append(step, to: parent)
  }

  /// A step of the event that is being placed.
  mutating func add(_ step: ReplayStep, waits: [ReplayPlan.Dependency]) {
    pending.append((step, waits))
  }

  /// The event of `thread` has its place.
  mutating func place(_ event: PlannerEvent, _ thread: Int) {
    passAcquisitions(thread, before: event.enter)
    pass(thread, until: event.enter, .program)
    settleDebt(thread)
    switch event {
    case .fault(let recorded): placeFault(recorded, thread)
    case .call(let call):
      move = call.move
      placeCall(call, thread)
      move = nil
    }
    chain = nil
    pending.removeAll(keepingCapacity: true)
  }

  /// All events are placed.
  mutating func finish() -> SimulationProgram {
    for (number, thread) in recording.threads.enumerated() {
      let end = thread.end ?? recording.duration
      passAcquisitions(number, before: end)
      pass(number, until: end, .program)
      settleDebt(number)
      if cursors[number].state == .blocked, end > cursors[number].time {
        // It slept until the recording ended.
        pause(number, end - cursors[number].time)
      }
      flushThink(number)
    }
    return program
  }

  // MARK: steps

  /// The steps of the event, which share its hold.
  mutating func emitPending(
    _ thread: Int, hold: UInt64, downgradedAfter: UInt64?
  ) {
    for (step, waits) in pending {
      guard let operation = step.operation else { continue }
      let (pages, effect) = pagesAndEffect(of: step)
      var result = SimulationStep(
        operation, pages.lowerBound, pages.upperBound, writes: operation.locksForWriting,
        effect: effect)
      let share = hold / UInt64(pending.count)
      result.hold = UInt32(clamping: share)
      result.counts = true
      if operation == .fault { result.writesPage = step.access == .write }
      // A stack that grows under a writer's hold is followed by its fault, a reader.
      if let downgradedAfter, result.writes, share > 0, hold > 0 {
        result.downgrade = max(1, min(4095, downgradedAfter * 4096 / hold))
      }
      switch result.effect {
      case .map where operation == .remap:
        result.attributes = UInt32(program.moves.count)
        if let move { program.moves.append(move.move) }
      case .map: result.attributes = attributesIndex(of: step)
      case .protect: result.attributes = step.protection.rawValue & 7
      case .none, .unmap: break
      }
      if !waits.isEmpty {
        result.dependency = UInt32(program.dependencies.count)
        for wait in waits {
          program.dependencies.append(UInt64(wait.thread) << 32 | UInt64(wait.steps))
        }
        program.dependencies[program.dependencies.count - 1] |= 1 << 63
      }
      append(result, to: thread)
      program.operations += 1
    }
  }

  /// What the step locks (the first of two ranges where it moves something), and what it does to the mappings.
  private func pagesAndEffect(
    of step: ReplayStep
  ) -> (pages: Range<UInt64>, effect: SimulationStep.Effect) {
    if step.operation == .remap, step.simulatedEffect == .map {
      // Without its arguments nothing is known but where it went.
      guard let move else { return (step.start..<step.end, .none) }
      return (move.move.sourceRange(from: move.start), .map)
    }
    return ((step.start & ~4095)..<step.end, step.simulatedEffect)
  }

  mutating func append(_ step: SimulationStep, to thread: Int) {
    var step = step
    if cursors[thread].think > UInt64(UInt32.max) { flushThink(thread) }
    step.think = UInt32(cursors[thread].think)
    cursors[thread].think = 0
    program.steps.append(step, chain: step.kind == .operation ? chain : nil, to: thread)
  }

  private mutating func flushThink(_ thread: Int) {
    if cursors[thread].think == 0 { return }
    program.steps.append(
      SimulationStep(.work, nanoseconds: cursors[thread].think), to: thread)
    cursors[thread].think = 0
  }

  private mutating func pause(_ thread: Int, _ nanoseconds: UInt64) {
    settleDebt(thread)
    flushThink(thread)
    program.blockedNanoseconds += nanoseconds
    program.steps.append(SimulationStep(.pause, nanoseconds: nanoseconds), to: thread)
  }

  /// The last fault's work is in the time after it.
  private mutating func settleDebt(_ thread: Int) {
    let paid = min(cursors[thread].debt, cursors[thread].think)
    cursors[thread].think -= paid
    cursors[thread].debt = 0
  }

  // MARK: time

  /// Accounts for the time of `thread` up to `time`.
  mutating func pass(_ thread: Int, until time: UInt64, _ use: Use) {
    if hasSwitches {
      let list = recording.threads[thread].scheduling
      while cursors[thread].scheduling < list.count {
        let event = recording.scheduling[Int(list[cursors[thread].scheduling])]
        if event.time >= time { break }
        cursors[thread].scheduling += 1
        spend(thread, until: event.time, use)
        switch event.change {
        case .switchedOut(.preempted): cursors[thread].state = .ready
        case .switchedOut: cursors[thread].state = .blocked
        case .woken:
          if cursors[thread].state == .blocked { cursors[thread].state = .ready }
        case .switchedIn: cursors[thread].state = .running
        }
      }
    }
    spend(thread, until: time, use)
  }

  private mutating func spend(_ thread: Int, until time: UInt64, _ use: Use) {
    guard time > cursors[thread].time else { return }
    let nanoseconds = time - cursors[thread].time
    cursors[thread].time = time
    if use == .wait { return }
    switch cursors[thread].state {
    case .running:
      program.runningNanoseconds += nanoseconds
      cursors[thread].think += nanoseconds
    case .ready: program.readyNanoseconds += nanoseconds
    case .blocked:
      if use == .call {
        program.blockedNanoseconds += nanoseconds
        cursors[thread].think += nanoseconds
      } else {
        pause(thread, nanoseconds)
      }
    }
  }

  // MARK: attributes

  private mutating func attributesIndex(of step: ReplayStep) -> UInt32 {
    var flags = step.protection.rawValue & 7
    if step.growsDown { flags |= SimulationProgram.Attributes.growsDown }
    var object: UInt32 = 0
    var delta: Int64 = 0
    if step.sharing == .shared {
      flags |= SimulationProgram.Attributes.shared
    } else if flags & 2 != 0 {
      flags |= SimulationProgram.Attributes.charged
    }
    if let file = step.file, file < 1 << 24 {
      object = UInt32(file) + 1
      delta = Int64(bitPattern: (step.start >> 12) &- step.pageOffset)
    } else if step.file != nil || step.sharing == .shared {
      lastObject &+= 1
      object = lastObject
      delta = Int64(bitPattern: step.start >> 12)
    }
    let found = SimulationProgram.Attributes(flags: flags, object: object, delta: delta)
    if let index = attributes[found] { return index }
    let index = UInt32(program.attributes.count)
    program.attributes.append(found)
    attributes[found] = index
    return index
  }
}

extension SimulationProgram {
  /// Makes a program of `recording`.
  ///
  /// - Complexity: a few microseconds an event; 32 bytes a step.
  public init(_ recording: Recording, settings: SimulationSettings = .init()) {
    self = ReplayPlanner.simulation(recording, settings)
  }
}
