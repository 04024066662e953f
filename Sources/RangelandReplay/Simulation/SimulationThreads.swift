// SPDX-License-Identifier: Apache-2.0
//
// Two simulations at a time: who takes which, and how far they are together.

import Glibc
import Synchronization

/// Hands out jobs and adds up how far they are.
final class SimulationShare: Sendable {
  private let jobs: Int
  private let expected: Double
  private let taken = Atomic<Int>(0)
  private let finished = Atomic<Int>(0)
  /// Events of jobs that are under way, by the parity of their number.
  private let first = Atomic<UInt64>(0)
  private let second = Atomic<UInt64>(0)
  private let stopped = Atomic<Bool>(false)

  /// - Parameter expected: events of a job.
  init(jobs: Int, expected: Double) {
    self.jobs = jobs
    self.expected = expected
  }

  func next() -> Int? {
    if isStopped { return nil }
    // Relaxed: only the number counts.
    let job = taken.add(1, ordering: .relaxed).oldValue
    return job < jobs ? job : nil
  }

  func report(_ job: Int, events: UInt64) {
    if job % 2 == 0 {
      first.store(events, ordering: .relaxed)
    } else {
      second.store(events, ordering: .relaxed)
    }
  }

  func finish(_ job: Int) {
    report(job, events: 0)
    finished.add(1, ordering: .relaxed)
  }

  /// The share of the work that is behind.
  var done: Double {
    let running =
      min(1, Double(first.load(ordering: .relaxed)) / expected)
      + min(1, Double(second.load(ordering: .relaxed)) / expected)
    return min(1, (Double(finished.load(ordering: .relaxed)) + running) / Double(jobs))
  }

  var isStopped: Bool { stopped.load(ordering: .relaxed) }

  /// Stops all unless `goesOn`; whether they are stopped.
  func stop(unless goesOn: Bool) -> Bool {
    if !goesOn { stopped.store(true, ordering: .relaxed) }
    return isStopped
  }
}

/// Results of jobs, each written by one thread and read after all threads have ended.
final class SimulationResults: @unchecked Sendable {
  // Sendable: an element has one writer, and readers come after `pthread_join`.
  private let runs: UnsafeMutablePointer<SimulationRun?>
  private let count: Int

  init(_ count: Int) {
    self.count = count
    runs = .allocate(capacity: max(1, count))
    runs.initialize(repeating: nil, count: count)
  }

  deinit {
    runs.deinitialize(count: count)
    runs.deallocate()
  }

  func set(_ index: Int, _ run: SimulationRun) { runs[index] = run }

  /// All of them, or nil if one is missing.
  var all: [SimulationRun]? {
    let found = (0..<count).compactMap { runs[$0] }
    return found.count == count ? found : nil
  }
}

enum SimulationThreads {
  private final class Body {
    let run: @Sendable (Int) -> Void
    let worker: Int
    init(_ worker: Int, _ run: @escaping @Sendable (Int) -> Void) {
      self.worker = worker
      self.run = run
    }
  }

  /// Runs `body` for `0..<count`, the first on this thread, and waits for all. Where the system has no thread for one,
  /// the others do its work.
  static func run(_ count: Int, _ body: @Sendable (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
      var handles: [pthread_t] = []
      for worker in stride(from: 1, to: count, by: 1) {
        let argument = Unmanaged.passRetained(Body(worker, body))
        var handle = pthread_t()
        let status = pthread_create(
          &handle, nil,
          { argument in
            let body = Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue()
            body.run(body.worker)
            return nil
          }, argument.toOpaque())
        if status == 0 { handles.append(handle) } else { argument.release() }
      }
      body(0)
      for handle in handles { pthread_join(handle, nil) }
    }
  }
}
