// SPDX-License-Identifier: Apache-2.0
//
// Runs a plan once on an address space: one thread for each recorded thread, as fast as the order allows.
//
// Guarantee: every step is done after those it depends on; what came of it is compared with what was recorded.
// Mechanism: a step waits for its dependencies outside its own clock; times go to an array, a word a step.
// Cost: two cycle stamps, one exchange and one load a step around the operation itself.

import CRangeland
import Rangeland
import Synchronization
import SystemPackage

/// One run of a plan. Used once.
final class Replay: @unchecked Sendable {
  // Sendable: the plan and the space are immutable handles; `latencies` has one writer a word; the rest is atomic
  // or synchronises itself.
  private let plan: ReplayPlan
  private let space: AddressSpace
  private let files: ReplayFiles
  private let steps: ReplaySteps.Reader
  private let calls: UnsafeMutableBufferPointer<ReplayCall>
  private let latencies: UnsafeMutableBufferPointer<UInt32>
  private let progress: ReplayProgress
  private var workers: ReplayWorkers!
  /// Threads that have not ended. Also the futex word that the caller sleeps on.
  private let left: UnsafeMutablePointer<Atomic<UInt32>>
  private let dependencyCycles = Atomic<UInt64>(0)
  /// Set when the run is given up: threads run through without doing anything.
  private let isGivenUp = Atomic<Bool>(false)
  private let mismatches = Mismatches()

  /// How long nothing may happen before a run is given up, in seconds.
  private static let patience = 60

  init(_ plan: ReplayPlan, _ space: AddressSpace, _ files: ReplayFiles) {
    self.plan = plan
    self.space = space
    self.files = files
    calls = .allocate(capacity: max(1, plan.calls.count))
    _ = calls.initialize(from: plan.calls)
    steps = plan.steps.reader
    latencies = .allocate(capacity: max(1, plan.steps.count))
    latencies.initialize(repeating: 0)
    progress = ReplayProgress(threads: plan.threads.count)
    left = .allocate(capacity: 1)
    left.initialize(to: Atomic(UInt32(plan.threads.count)))
  }

  deinit {
    calls.deallocate()
    latencies.deallocate()
    progress.destroy()
    left.deinitialize(count: 1)
    left.deallocate()
  }

  /// Does the steps of the plan and returns what was measured.
  ///
  /// - Parameter isCancelled: asked ten times a second.
  func run(isCancelled: () -> Bool) throws(ReplayError) -> ReplayRun {
    try setUp()
    workers = ReplayWorkers { [unowned self] in self.runThread($0) }
    do {
      try workers.prepare(min(plan.threadsAtOnce, plan.threads.count))
    } catch {
      workers.join()
      throw error
    }
    let startTime = rl_monotonic_ns()
    let startCycles = rl_cycles()
    for thread in plan.roots { startThread(thread) }
    let error = waitForThreads(isCancelled)
    let nanoseconds = rl_monotonic_ns() - startTime
    let cycles = rl_cycles() &- startCycles
    if case .stalled? = error {
      // Its threads cannot be joined, and go on using what is here.
      _ = Unmanaged.passRetained(self)
      throw error!
    }
    workers.join()
    if let error = error ?? mismatches.error { throw error }
    compareLayouts()
    return ReplayRun(
      policy: space.policy, nanoseconds: nanoseconds, operations: plan.operations,
      dependencyNanoseconds: dependencyCycles.load(ordering: .relaxed).scaled(nanoseconds, cycles),
      mismatches: mismatches.count, examples: mismatches.examples,
      byOperation: latenciesByOperation(nanoseconds, cycles),
      statistics: space.lockStatistics)
  }

  private func setUp() throws(ReplayError) {
    for step in plan.setup {
      let outcome = step.perform(on: space, calls.baseAddress!, files)
      guard outcome == .success else {
        throw .setupFailed("the mapping at \(hex(step.start)): \(outcome)")
      }
    }
  }

  // MARK: threads

  private func startThread(_ thread: Int) {
    if plan.threads[thread].isEmpty || isGivenUp.load(ordering: .relaxed) {
      skip(thread)
      return
    }
    do {
      try workers.start(thread)
    } catch {
      mismatches.fail(error)
      isGivenUp.store(true, ordering: .relaxed)
      skip(thread)
    }
  }

  /// Passes over the steps of a thread that is not run, and of those that it would have started.
  private func skip(_ thread: Int) {
    for index in plan.threads[thread] where steps[index].action == .spawn {
      startThread(Int(steps[index].start))
    }
    progress.advance(thread, to: plan.threads[thread].count)
    endThread()
  }

  private func endThread() {
    // Releases the thread's mismatches and times to who waits for the last.
    if left.pointee.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 {
      _ = rl_futex_wake(leftWord, 1)
    }
  }

  private var leftWord: UnsafeMutablePointer<UInt32> {
    UnsafeMutableRawPointer(left).assumingMemoryBound(to: UInt32.self)
  }

  /// Sleeps until every thread has ended; why the run was given up, if it was.
  private func waitForThreads(_ isCancelled: () -> Bool) -> ReplayError? {
    var seen: UInt64 = 0
    var lastChange = rl_monotonic_ns()
    var error: ReplayError?
    while true {
      let now = left.pointee.load(ordering: .acquiring)
      if now == 0 { return error }
      _ = rl_futex_wait(leftWord, now, rl_monotonic_ns() + 100_000_000)
      if error == nil && isCancelled() {
        error = .interrupted
        isGivenUp.store(true, ordering: .relaxed)
      }
      let total = progress.total
      if total != seen {
        seen = total
        lastChange = rl_monotonic_ns()
      } else if rl_monotonic_ns() - lastChange > UInt64(Self.patience) * 1_000_000_000 {
        return .stalled(Self.patience)
      }
    }
  }

  /// All steps of one recorded thread.
  private func runThread(_ thread: Int) {
    let range = plan.threads[thread]
    let steps = steps
    var done = 0
    for index in range {
      let step = steps[index]
      if !step.dependencies.isEmpty { waitForOthers(step.dependencies) }
      if step.action == .spawn {
        startThread(Int(step.start))
      } else if !isGivenUp.load(ordering: .relaxed) {
        let start = rl_cycles()
        let outcome = step.perform(on: space, calls.baseAddress!, files)
        latencies[index] = UInt32(clamping: rl_cycles() &- start)
        if outcome != step.expected {
          mismatches.note(step, outcome, thread: thread)
        }
      }
      done += 1
      progress.advance(thread, to: done)
    }
    endThread()
  }

  private func waitForOthers(_ dependencies: Range<Int>) {
    var start: UInt64 = 0
    for index in dependencies {
      let dependency = plan.dependencies[index]
      if progress.has(dependency.thread, done: dependency.steps) { continue }
      if start == 0 { start = rl_cycles() }
      progress.wait(for: dependency.thread, steps: dependency.steps)
    }
    if start != 0 { dependencyCycles.add(rl_cycles() &- start, ordering: .relaxed) }
  }

  // MARK: results

  /// Compares the mappings at the end with those that the recording leads to.
  private func compareLayouts() {
    let expected = LayoutSketch(plan.finalLayout)
    let found = LayoutSketch(space.mappings())
    if let difference = expected.firstDifference(from: found) { mismatches.note(difference) }
  }

  private func latenciesByOperation(_ nanoseconds: UInt64, _ cycles: UInt64)
    -> [ReplayRun.Operation]
  {
    let (steps, latencies) = (steps, latencies)
    var found = StepTimes.medians(
      plan.steps.indices, operation: { steps[$0].operation }, time: { latencies[$0] })
    for index in found.indices {
      found[index].medianNanoseconds = found[index].medianNanoseconds.scaled(nanoseconds, cycles)
    }
    return found
  }
}

extension UInt64 {
  /// Cycle stamps as nanoseconds, by a span measured with both clocks.
  fileprivate func scaled(_ nanoseconds: UInt64, _ cycles: UInt64) -> UInt64 {
    cycles == 0 ? 0 : UInt64((Double(self) * Double(nanoseconds) / Double(cycles)).rounded())
  }
}
