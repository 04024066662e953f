// SPDX-License-Identifier: Apache-2.0
//
// Makes a plan of a recording: one history that the recorded times and results allow, and from it what each step
// has to wait for.
//
// Mechanism: the events of all threads are placed one after the other, each at the moment where it usually has
//   its effect (an unmap when it begins, a mapping when it is over). Where that contradicts a recorded result, an
//   event that was under way at the time and explains it is placed first. A layout model follows. The search does
//   not go back: a result that stays unexplained is substituted, and counted.
// Cost: a heap operation and a few looks at the model an event; at an unmap a look at every live thread.
// Source: Herlihy and Wing, "Linearizability" (1990): a history of intervals is explained by one of points.

import HeapModule
import Rangeland

struct ReplayPlanner {
  private let recording: Recording
  private var plan = ReplayPlan()
  private var model: LayoutModel
  private var order = OverlapOrder()
  /// The steps of each thread so far, unless a simulation is made, and their number.
  private var emitted: [ReplaySteps]
  private var emittedCounts: [Int]
  /// Takes the steps when a simulation is made.
  private var simulation: SimulationBuilder?
  /// Per thread, the position of its head in the recording; -1 before its beginning.
  private var position: [Int]
  /// Threads that have begun and are not done.
  private var active: [Int] = []
  /// Threads whose head is being placed.
  private var inProgress: Set<Int> = []
  private var queue = Heap<PlannerHead>()
  private var substituted: [String: Int] = [:]
  private var surroundings: ReplaySurroundings
  /// Places by `.linux` what was left to the kernel, if that is wanted.
  private var shadow: PlacementShadow?
  /// When the last placed call of each thread that changes the layout was over; kept with `shadow`.
  private var lastChange: [UInt64] = []

  static func plan(_ recording: Recording, placing: Bool) -> ReplayPlan {
    var planner = ReplayPlanner(recording)
    if placing { planner.cast(recording) }
    planner.placeAll()
    return planner.finish()
  }

  /// The same history as a program for the simulator, step by step: no plan is held.
  static func simulation(
    _ recording: Recording, _ settings: SimulationSettings
  ) -> SimulationProgram {
    var planner = ReplayPlanner(recording)
    planner.simulation = SimulationBuilder(recording, settings: settings)
    planner.simulation?.setUp(planner.plan.setup)
    planner.placeAll()
    guard var builder = planner.simulation.take() else { preconditionFailure("it was set above") }
    return builder.finish()
  }

  private init(_ recording: Recording) {
    self.recording = recording
    model = LayoutModel(recording.initialLayout)
    emitted = recording.threads.map { _ in ReplaySteps() }
    emittedCounts = Array(repeating: 0, count: recording.threads.count)
    position = Array(repeating: -1, count: recording.threads.count)
    surroundings = ReplaySurroundings(recording)
    setUp()
  }

  /// The mappings at the start, and the files.
  private mutating func setUp() {
    plan.fileSizes = surroundings.fileSizes
    if let heap = surroundings.heap {
      plan.setup.append(ReplayStep(.setHeap, heap.start..<heap.start))
      if heap.end > heap.start {
        var step = ReplayStep(.call, heap.start..<heap.end)
        step.callOperation = .setBreak
        step.callEffect = .map
        step.protection = [.read, .write]
        step.call = UInt32(plan.calls.count)
        plan.calls.append(ReplayCall(.brk, LinuxArguments(heap.end), result: heap.end))
        plan.setup.append(step)
      }
    }
    for area in recording.initialLayout {
      let made = surroundings.mapping(at: area)
      if let name = made.substituted { count(name) }
      for step in made.steps {
        plan.setup.append(
          made.call.map {
            var step = step
            step.call = UInt32(plan.calls.count)
            plan.calls.append($0)
            return step
          } ?? step)
      }
    }
  }

  private mutating func cast(_ recording: Recording) {
    lastChange = Array(repeating: 0, count: recording.threads.count)
    do {
      shadow = try PlacementShadow(recording, plan)
    } catch {
      plan.placement = PlacementAgreement()
      plan.placement?.problem = "\(error)"
    }
  }

  // MARK: placing

  private mutating func placeAll() {
    for (number, thread) in recording.threads.enumerated() {
      queue.insert(PlannerHead(time: thread.beginning.time, thread: number, position: -1))
    }
    while let head = queue.popMin() {
      // Heads that were placed out of turn are still in the queue.
      guard position[head.thread] == head.position else { continue }
      if head.position < 0 {
        begin(head.thread)
      } else {
        placeInOrder(head.thread)
      }
    }
  }

  /// Places the head of `thread`, after what has to come before it.
  private mutating func placeInOrder(_ thread: Int) {
    let head = position[thread]
    let event = event(thread)
    inProgress.insert(thread)
    if let removal = event.removal(model) { placeUsers(of: removal, before: event) }
    while !event.isExplained(by: model), let helper = explanation(of: event), bring(helper) {}
    inProgress.remove(thread)
    if position[thread] == head { place(thread) }
  }

  /// Places what was under way beside a removal and works on the pages: it did not fail, so it came first.
  private mutating func placeUsers(of range: Range<UInt64>, before removal: PlannerEvent) {
    while true {
      let user = firstEvent(until: removal.exit) { other in
        other.needsMappings && other.neededRanges(model).contains { $0.overlaps(range) }
          && other.isExplained(by: model) && !isMapped(range, before: other.enter)
      }
      guard let user, bring(user) else { return }
    }
  }

  /// Whether pages of `range` were mapped anew by a call that is not placed yet and was over at `time`: then what
  /// began at that time works on the new mapping, and comes after the removal of the old one.
  private func isMapped(_ range: Range<UInt64>, before time: UInt64) -> Bool {
    firstEvent(until: time) { other in
      other.exit < time && !other.needsMappings && other.removal(model) == nil
        && other.ranges(model).contains { $0.overlaps(range) }
    } != nil
  }

  /// A call of another thread that was under way, works on the same pages and may have had its effect already.
  private func explanation(of event: PlannerEvent) -> PlannerHead? {
    let ranges = event.ranges(model)
    // What needs mappings or rights waits for them to be given, what needs room for them to be taken.
    let needsMappings = event.needsMappings
    return firstEvent(until: event.exit) { other in
      guard case .call(let call) = other, call.errno == nil else { return false }
      return (other.removal(model) == nil) == needsMappings && other.isExplained(by: model)
        && other.ranges(model).contains { one in ranges.contains { $0.overlaps(one) } }
    }
  }

  /// Of the events of other threads that are not placed yet and began by `time`, the one that usually comes first
  /// among those for which `isWanted` holds.
  private func firstEvent(
    until time: UInt64, _ isWanted: (PlannerEvent) -> Bool
  ) -> PlannerHead? {
    var first: (head: PlannerHead, usualTime: UInt64)?
    for thread in active where !inProgress.contains(thread) {
      for index in position[thread]..<recording.threads[thread].steps.count {
        let event = event(thread, index)
        if event.enter > time { break }
        if event.usualTime < first?.usualTime ?? .max, isWanted(event) {
          let head = PlannerHead(time: event.enter, thread: thread, position: index)
          first = (head, event.usualTime)
        }
      }
    }
    return first?.head
  }

  /// Places an event out of its turn, after all that comes before it in its thread or was over before it began;
  /// false if an event in progress was.
  private mutating func bring(_ head: PlannerHead) -> Bool {
    while position[head.thread] <= head.position {
      let earlier = active.filter { $0 != head.thread && event($0).exit < head.time }
        .min { event($0).usualTime < event($1).usualTime }
      if let earlier {
        if inProgress.contains(earlier) { return false }
        placeInOrder(earlier)
      } else if position[head.thread] == head.position {
        place(head.thread)
      } else {
        placeInOrder(head.thread)
      }
    }
    return true
  }

  private func event(_ thread: Int) -> PlannerEvent { event(thread, position[thread]) }

  private func event(_ thread: Int, _ index: Int) -> PlannerEvent {
    switch recording.threads[thread].steps[index].target {
    case .call(let index): return .call(recording.calls[index])
    case .fault(let index): return .fault(recording.faults[index])
    }
  }

  /// Starts a thread: a step of its maker, placed where the maker stands.
  private mutating func begin(_ thread: Int) {
    if let parent = recording.threads[thread].beginning.parent {
      emittedCounts[parent] += 1
      if simulation == nil {
        emitted[parent].append(ReplayStep(.spawn, UInt64(thread)..<UInt64(thread)))
      } else {
        simulation?.spawn(thread, by: parent)
      }
    } else {
      plan.roots.append(thread)
      simulation?.addRoot(thread)
    }
    advance(thread)
    if position[thread] < recording.threads[thread].steps.count { active.append(thread) }
  }

  /// Moves a thread's head on.
  private mutating func advance(_ thread: Int) {
    position[thread] += 1
    if position[thread] < recording.threads[thread].steps.count {
      queue.insert(
        PlannerHead(time: event(thread).usualTime, thread: thread, position: position[thread]))
    } else if let index = active.firstIndex(of: thread) {
      active.swapAt(index, active.count - 1)
      active.removeLast()
    }
  }

  /// Places the head of `thread` now.
  private mutating func place(_ thread: Int) {
    let event = event(thread)
    let translation: Translation
    switch event {
    case .call(let call):
      translation = Translation(call, model, surroundings)
      // Also where the effect is none: the break moves.
      model.apply(call)
      if call.errno != nil || call.kind == .remapFilePages { model.apply(translation.effect) }
    case .fault(let fault):
      translation = Translation(fault, model)
      model.apply(translation.effect)
    }
    if let name = translation.substituted { count(name) }
    for step in translation.steps { emit(step, translation, thread, event) }
    simulation?.place(event, thread)
    if let shadow {
      shadow.place(event, translation) { hasChange(beside: event, of: thread) }
      if case .call(let call) = event, call.changesLayout { lastChange[thread] = call.exit }
    }
    advance(thread)
  }

  /// Whether a call of another thread that changes the layout was under way during `event`.
  private func hasChange(beside event: PlannerEvent, of thread: Int) -> Bool {
    for other in lastChange.indices where other != thread && lastChange[other] > event.enter {
      return true
    }
    for other in active where other != thread {
      for index in position[other]..<recording.threads[other].steps.count {
        let later = self.event(other, index)
        if later.enter > event.exit { break }
        if case .call(let call) = later, call.changesLayout { return true }
      }
    }
    return false
  }

  private mutating func emit(
    _ step: ReplayStep, _ translation: Translation, _ thread: Int, _ event: PlannerEvent
  ) {
    var step = step
    if step.action == .call, let call = translation.call {
      step.call = UInt32(plan.calls.count)
      if simulation == nil { plan.calls.append(call) }
    }
    let mark = OverlapOrder.Mark(thread: thread, step: emittedCounts[thread], exit: event.exit)
    emittedCounts[thread] += 1
    var waits: [ReplayPlan.Dependency] = []
    if step.action == .fault && translation.changes == nil {
      waits = order.addReader(page: step.start & ~4095, mark, enter: event.enter)
    } else {
      for range in translation.changes ?? [step.start..<step.end] where !range.isEmpty {
        waits += order.addWriter(range, mark, enter: event.enter)
      }
    }
    if simulation != nil {
      simulation?.add(step, waits: waits)
      return
    }
    let first = plan.dependencies.count
    plan.dependencies += waits
    step.dependencies = first..<plan.dependencies.count
    emitted[thread].append(step)
    plan.operations += 1
  }

  private mutating func count(_ name: String) { substituted[name, default: 0] += 1 }

  // MARK: the plan

  private mutating func finish() -> ReplayPlan {
    var first = 0
    for steps in emitted {
      plan.threads.append(first..<(first + steps.count))
      first += steps.count
    }
    plan.steps = ReplaySteps(taking: &emitted)
    plan.substituted = substituted.map { (kind: $0.key, count: $0.value) }
      .sorted { $0.kind < $1.kind }
    plan.ambiguousPairs = order.ambiguousPairs
    plan.finalLayout = model.areas
    if let shadow { plan.placement = shadow.agreement }
    plan.threadsAtOnce = RecordingSummary.most(recording.threads) ?? recording.threads.count
    return plan
  }
}

extension ReplayPlan {
  /// Plans the replay of `recording`.
  ///
  /// - Parameter placing: whether `.linux` places what the program left to the kernel too (`placement`).
  /// - Complexity: a few microseconds an event.
  public init(_ recording: Recording, placing: Bool = false) {
    self = ReplayPlanner.plan(recording, placing: placing)
  }
}
