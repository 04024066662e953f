// SPDX-License-Identifier: Apache-2.0
//
// Runs the cells of a benchmark interleaved, so that a slow minute of the machine hits all of them.

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
        let sample = try once(cell)
        if round > 0 { samples[i].append(sample) }
      }
    }
    return zip(cells, samples).map { BenchResult($0, $1) }
  }

  /// Nanoseconds an operation of one thread, over all threads of one run.
  private func once(_ cell: BenchCell) throws -> Double {
    let bodies = try cell.prepare(cell.threads)
    let gate = BenchGate(threads: bodies.count)
    let span = UInt64(milliseconds) * 1_000_000
    let rates = RateSum()
    let threads = bodies.map { body in
      let thread = Thread {
        gate.enter()
        let start = rl_monotonic_ns()
        var operations = 0
        var now = start
        repeat {
          operations += body.runBatch()
          now = rl_monotonic_ns()
        } while now &- start < span
        rates.add(Double(operations) / Double(now - start))
        gate.leave()
      }
      thread.stackSize = 1 << 20
      thread.start()
      return thread
    }
    gate.waitUntilAllLeft()
    _ = threads
    return Double(bodies.count) / rates.value
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

/// The sum of the threads' rates, in operations a nanosecond.
private final class RateSum: Sendable {
  private let lock = NSLock()
  nonisolated(unsafe) private var sum = 0.0

  func add(_ rate: Double) {
    lock.lock()
    sum += rate
    lock.unlock()
  }

  var value: Double {
    lock.lock()
    defer { lock.unlock() }
    return sum
  }
}
