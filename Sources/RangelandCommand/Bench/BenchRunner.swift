// SPDX-License-Identifier: Apache-2.0
//
// Runs the cells of a benchmark interleaved, so that a slow minute of the machine hits all of them.
//
// Threads of a run that are no more than the processors have one each. A run in which another program took one is made
// again, a few times.

import CRangeland
import Foundation
import Synchronization

/// Measures cells: every round runs each cell once, and a cell's figure is the median of its rounds.
struct BenchRunner {
  /// Rounds, the first of which warms up and is not counted.
  var rounds: Int
  /// How long one run of one cell takes.
  var milliseconds: Int

  /// All cells, `rounds` times, interleaved.
  func run(_ cells: [BenchCell], progress: (String) -> Void) throws -> [BenchResult] {
    var samples = [[Double]](repeating: [], count: cells.count)
    for round in 0...rounds {
      for (i, cell) in cells.enumerated() {
        progress("round \(round)/\(rounds): \(cell.name) \(cell.subject) x\(cell.threads)")
        let sample = try undisturbed(cell)
        if round > 0 { samples[i].append(sample) }
      }
    }
    return zip(cells, samples).map { BenchResult($0, $1) }
  }

  /// A run that nothing else took a processor from, if there is one among a few: the least disturbed.
  private func undisturbed(_ cell: BenchCell) throws -> Double {
    var best: Run?
    for _ in 0..<Self.mostRuns {
      let run = try once(cell)
      if run.preemptions < best?.preemptions ?? .max { best = run }
      if run.preemptions <= 1 { break }
    }
    return best!.nanoseconds
  }

  /// Runs of one cell in one round, as long as each was disturbed.
  static let mostRuns = 4

  private struct Run {
    /// An operation of one thread, over all threads.
    var nanoseconds: Double
    /// How often threads that have a processor each had to give it to others; 0 where they share processors.
    var preemptions: Int
  }

  private func once(_ cell: BenchCell) throws -> Run {
    let bodies = try cell.prepare(cell.threads)
    let gate = BenchGate(threads: bodies.count)
    let span = UInt64(milliseconds) * 1_000_000
    let sums = RunSums()
    let isKept = bodies.count <= Processors.allowed.count
    let threads = bodies.enumerated().map { place, body in
      let thread = Thread {
        // From the last on: the first serves most interrupts.
        if isKept { Processors.keepThread(on: Processors.allowed.count - 1 - place) }
        gate.enter()
        let before = Processors.preemptions
        let start = rl_monotonic_ns()
        var operations = 0
        var now = start
        repeat {
          operations += body.runBatch()
          now = rl_monotonic_ns()
        } while now &- start < span
        sums.add(
          Double(operations) / Double(now - start), isKept ? Processors.preemptions - before : 0)
        gate.leave()
      }
      thread.stackSize = 1 << 20
      thread.start()
      return thread
    }
    gate.waitUntilAllLeft()
    _ = threads
    return Run(nanoseconds: Double(bodies.count) / sums.rate, preemptions: sums.preemptions)
  }
}

/// Starts the threads of a run together and waits for their end.
private final class BenchGate: Sendable {
  private let condition = NSCondition()
  private let state: Atomic<Int>
  private let left = Atomic<Int>(0)
  private let threads: Int

  init(threads: Int) {
    self.threads = threads
    state = Atomic(threads)
  }

  /// Spins until every thread is here, so that all are on a processor when the clock starts.
  func enter() {
    state.subtract(1, ordering: .acquiringAndReleasing)
    var spins = 0
    while state.load(ordering: .acquiring) > 0 {
      rl_cpu_relax()
      spins += 1
      if spins & 1023 == 0 { sched_yield() }
    }
  }

  func leave() {
    condition.lock()
    left.add(1, ordering: .releasing)
    condition.broadcast()
    condition.unlock()
  }

  func waitUntilAllLeft() {
    condition.lock()
    while left.load(ordering: .acquiring) < threads { condition.wait() }
    condition.unlock()
  }
}

/// What the threads of a run add up to.
private final class RunSums: Sendable {
  private let lock = NSLock()
  nonisolated(unsafe) private var sums = (rate: 0.0, preemptions: 0)

  func add(_ rate: Double, _ preemptions: Int) {
    lock.lock()
    sums.rate += rate
    sums.preemptions += preemptions
    lock.unlock()
  }

  /// Operations a nanosecond.
  var rate: Double { lock.withLock { sums.rate } }

  var preemptions: Int { lock.withLock { sums.preemptions } }
}
