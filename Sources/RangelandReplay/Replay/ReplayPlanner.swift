// SPDX-License-Identifier: Apache-2.0
//
// Makes a plan of a recording: one history that the recorded times and results allow, and from it what each step
// has to wait for.
//
// Mechanism: the events of all threads are placed one after the other, each at the moment where it usually has
//   its effect (an unmap when it begins, a mapping when it is over). Where that contradicts a recorded result, an
//   event that was under way at the time and explains it is placed first. A layout model follows.
// Cost: a heap operation and a few looks at the model an event; at an unmap a look at every live thread.
// Source: Herlihy and Wing, "Linearizability" (1990): a history of intervals is explained by one of points.

import HeapModule

struct ReplayPlanner {
  private let recording: Recording
  private var plan = ReplayPlan()
  private var model: LayoutModel
  private var order = OverlapOrder()
  /// The steps of each thread so far.
  private var emitted: [[ReplayStep]]
  /// Per thread, the position of its head in the recording; -1 before its beginning.
  private var position: [Int]
  /// Threads that have begun and are not done.
  private var active: [Int] = []
  private var queue = Heap<PlannerHead>()
  private var substituted: [String: Int] = [:]

  static func plan(_ recording: Recording) -> ReplayPlan {
    var planner = ReplayPlanner(recording)
    planner.placeAll()
    return planner.finish()
  }

  private init(_ recording: Recording) {
    self.recording = recording
    model = LayoutModel(recording.initialLayout)
    emitted = Array(repeating: [], count: recording.threads.count)
    position = Array(repeating: -1, count: recording.threads.count)
    plan.setup = recording.initialLayout.map { ReplayStep(.substituteMapping, $0) }
    for area in recording.initialLayout {
      switch area.backing {
      case .anonymous: break
      case .file: count("file mapping at the start")
      case .stack: count("stack at the start")
      case .heap: count("heap at the start")
      case .kernel: count("kernel mapping at the start")
      }
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
    let event = event(thread)
    if let removal = event.removal(model) { placeUsers(of: removal, before: event, thread) }
    while !event.isExplained(by: model), let helper = explanation(of: event, thread) {
      place(helper)
    }
    place(thread)
  }

  /// Places what was under way beside a removal and works on the pages: it did not fail, so it came first.
  private mutating func placeUsers(
    of range: Range<UInt64>, before removal: PlannerEvent, _ thread: Int
  ) {
    while true {
      let limit = min(removal.exit, earliestExit(except: thread))
      let user = active.first {
        guard $0 != thread else { return false }
        let other = event($0)
        return other.enter <= limit && other.needsMappings
          && other.ranges(model).contains { $0.overlaps(range) } && other.isExplained(by: model)
      }
      guard let user else { return }
      place(user)
    }
  }

  /// A call of another thread that was under way, works on the same pages and may have had its effect already.
  private func explanation(of event: PlannerEvent, _ thread: Int) -> Int? {
    let limit = min(event.exit, earliestExit(except: thread))
    let ranges = event.ranges(model)
    return active.first { other in
      guard other != thread, case .call(let call) = self.event(other), call.errno == nil,
        call.enter <= limit
      else { return false }
      let helper = self.event(other)
      return helper.isExplained(by: model)
        && helper.ranges(model).contains { one in ranges.contains { $0.overlaps(one) } }
    }
  }

  /// No event that began after this moment may be placed yet: one that was over before comes first.
  private func earliestExit(except thread: Int) -> UInt64 {
    var earliest = UInt64.max
    for other in active where other != thread { earliest = min(earliest, event(other).exit) }
    return earliest
  }

  private func event(_ thread: Int) -> PlannerEvent {
    let steps = recording.threads[thread].steps
    switch steps[position[thread]].target {
    case .call(let index): return .call(recording.calls[index])
    case .fault(let index): return .fault(recording.faults[index])
    }
  }

  /// Starts a thread: a step of its maker, placed where the maker stands.
  private mutating func begin(_ thread: Int) {
    if let parent = recording.threads[thread].beginning.parent {
      var spawn = ReplayStep(.spawn, UInt64(thread)..<UInt64(thread))
      spawn.expected = .success
      emitted[parent].append(spawn)
    } else {
      plan.roots.append(thread)
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
      translation = Translation(call, model)
      // Also where the effect is none: the break moves.
      model.apply(call)
      if call.errno != nil { model.apply(translation.effect) }
    case .fault(let fault):
      translation = Translation(fault, model)
      model.apply(translation.effect)
    }
    if let name = translation.substituted { count(name) }
    for step in translation.steps { emit(step, thread, event) }
    advance(thread)
  }

  private mutating func emit(_ step: ReplayStep, _ thread: Int, _ event: PlannerEvent) {
    var step = step
    let mark = OverlapOrder.Mark(thread: thread, step: emitted[thread].count, exit: event.exit)
    let waits =
      step.action == .fault
      ? order.addReader(page: step.start & ~4095, mark, enter: event.enter)
      : order.addWriter(step.start..<step.end, mark, enter: event.enter)
    let first = plan.dependencies.count
    plan.dependencies.append(contentsOf: waits)
    step.dependencies = first..<plan.dependencies.count
    emitted[thread].append(step)
    plan.operations += 1
  }

  private mutating func count(_ name: String) { substituted[name, default: 0] += 1 }

  // MARK: the plan

  private mutating func finish() -> ReplayPlan {
    for steps in emitted {
      plan.threads.append(plan.steps.count..<(plan.steps.count + steps.count))
      plan.steps.append(contentsOf: steps)
    }
    plan.substituted = substituted.map { (kind: $0.key, count: $0.value) }
      .sorted { $0.kind < $1.kind }
    plan.ambiguousPairs = order.ambiguousPairs
    plan.finalLayout = model.areas
    plan.threadsAtOnce = RecordingSummary.most(recording.threads) ?? recording.threads.count
    return plan
  }
}

extension ReplayPlan {
  /// Plans the replay of `recording`.
  ///
  /// - Complexity: a few microseconds an event.
  public init(_ recording: Recording) { self = ReplayPlanner.plan(recording) }
}
