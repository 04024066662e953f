// SPDX-License-Identifier: Apache-2.0
//
// A program under each policy on each number of processors.

import Rangeland
import Synchronization

/// What one simulation came to.
public struct SimulationRun: Sendable {
  public var policy: LockPolicy
  public var cores: Int
  /// From the start to the end of the last thread, in nanoseconds of simulated time.
  public var nanoseconds: UInt64
  /// Time that processors were busy, summed over them; polling counts.
  public var busyNanoseconds: UInt64
  /// Time that threads were ready and had no processor, summed over threads.
  public var readyNanoseconds: UInt64
  /// Time that threads waited for steps of others that come before theirs, summed over threads.
  public var orderNanoseconds: UInt64
  /// The waits for the lock, as `AddressSpace.lockStatistics` counts them; `requests` is empty.
  public var waits: LockStatistics
  /// Waits by powers of two of their length: element `n` counts those of at least 2^n and less than 2^(n+1) ns.
  public var waitLengths: [UInt64]
  /// Events that were simulated.
  public var events: UInt64
  /// The waits by call chain, the `chainLimit` that waited longest, most time first; none where chains are not recorded.
  public var chains: [ChainWait] = []
  /// How many call chains waited.
  public var chainCount = 0

  /// The waits of one call chain.
  public struct ChainWait: Sendable, Equatable {
    /// Its number in `SimulationProgram.chains`; nil: of an operation whose chain is not recorded.
    public var chain: Int?
    public var operation: OperationKind?
    public var waits: UInt64
    public var nanoseconds: UInt64
    /// What of it was behind nobody on the same pages.
    public var falseNanoseconds: UInt64

    /// Whether `other`, of another run, is of the same chain and operation.
    public func isAlike(_ other: ChainWait) -> Bool {
      chain == other.chain && operation == other.operation
    }
  }

  /// How many of `chains` there are at most.
  public static let chainLimit = 200

  /// The chains of several runs, those first that waited longest in all of them together; behind them what has no chain.
  ///
  /// The figures of each are those of the run that it comes first from.
  public static func longestChains(_ runs: [[ChainWait]]) -> [ChainWait] {
    struct Key: Hashable {
      var chain: Int?
      var operation: OperationKind?
    }
    var sums: [Key: (first: ChainWait, nanoseconds: UInt64)] = [:]
    for wait in runs.joined() {
      let key = Key(chain: wait.chain, operation: wait.operation)
      sums[key, default: (wait, 0)].nanoseconds += wait.nanoseconds
    }
    func isBefore(
      _ left: (first: ChainWait, nanoseconds: UInt64),
      _ right: (first: ChainWait, nanoseconds: UInt64)
    ) -> Bool {
      // What says which code it is comes before what does not.
      if (left.first.chain == nil) != (right.first.chain == nil) { return left.first.chain != nil }
      return (right.nanoseconds, left.first.chain ?? -1, left.first.operation?.rawValue ?? 99)
        < (left.nanoseconds, right.first.chain ?? -1, right.first.operation?.rawValue ?? 99)
    }
    return sums.values.sorted(by: isBefore).map(\.first)
  }
}

/// Simulates programs.
public enum Simulation {
  /// The numbers of processors that are simulated unless others are asked for.
  public static let usualCores = [2, 8, 32, 64]

  /// Simulates `program` once.
  ///
  /// - Parameters:
  ///   - isCancelled: asked now and then, with the number of events that are behind.
  /// - Returns: nil if it was cancelled.
  /// - Precondition: `cores` is in `1...64`.
  public static func run(
    _ program: SimulationProgram, policy: LockPolicy, cores: Int,
    settings: SimulationSettings = .init(), isCancelled: (UInt64) -> Bool = { _ in false }
  ) -> SimulationRun? {
    run(program, policy, cores, settings, trace: nil, isCancelled)
  }

  /// Simulates `program` once and writes a trace of it that Perfetto opens.
  ///
  /// - Returns: nil if it was cancelled; then there is no file.
  /// - Throws: when the file cannot be written.
  public static func trace(
    _ program: SimulationProgram, policy: LockPolicy, cores: Int,
    settings: SimulationSettings = .init(), to path: String, title: String,
    isCancelled: (UInt64) -> Bool = { _ in false }
  ) throws(RecordingError) -> SimulationRun? {
    let trace = try SimulationTrace(path: path, title: title, threadNames: program.threadNames)
    let result = run(program, policy, cores, settings, trace: trace) {
      trace.failure != nil || isCancelled($0)
    }
    if result != nil || trace.failure != nil { try trace.finish() }
    return result
  }

  private static func run(
    _ program: SimulationProgram, _ policy: LockPolicy, _ cores: Int,
    _ settings: SimulationSettings, trace: SimulationTrace?, _ isCancelled: (UInt64) -> Bool
  ) -> SimulationRun? {
    program.dependencies.withUnsafeBufferPointer { dependencies in
      // They are not read where there are none.
      let base = dependencies.baseAddress ?? UnsafePointer(bitPattern: 8)!
      var simulator = Simulator(
        program, policy: policy, cores: cores, settings: settings, dependencies: base, trace: trace)
      guard simulator.run(roots: program.roots, isCancelled: isCancelled) else { return nil }
      precondition(
        simulator.ended == program.threadCount,
        "a simulation has come to rest with threads that wait: a bug of Rangeland")
      return simulator.result()
    }
  }

  /// Simulates `program` under each policy on each number of processors, policies first. Two run at a time.
  ///
  /// - Parameters:
  ///   - progress: told, now and then, which share of the work is behind; false = stop. Called from one thread at a
  ///     time.
  /// - Returns: in the order of `policies`, and of `cores` for each; nil if it was stopped.
  public static func runAll(
    _ program: SimulationProgram, policies: [LockPolicy] = LockPolicy.allCases, cores: [Int],
    settings: SimulationSettings = .init(), progress: @Sendable (Double) -> Bool = { _ in true }
  ) -> [SimulationRun]? {
    let jobs = policies.flatMap { policy in cores.map { (policy, $0) } }
    let share = SimulationShare(
      jobs: jobs.count, expected: Double(max(1, program.stepCount)) * 2.2)
    let results = SimulationResults(jobs.count)
    SimulationThreads.run(min(2, jobs.count)) { worker in
      while let job = share.next() {
        let run = run(program, policy: jobs[job].0, cores: jobs[job].1, settings: settings) {
          share.report(job, events: $0)
          // One of the two speaks for both.
          if worker == 0 || share.isStopped { return share.stop(unless: progress(share.done)) }
          return false
        }
        guard let run else { return }
        results.set(job, run)
        share.finish(job)
      }
    }
    return results.all
  }
}

extension Simulator {
  /// What has come of it.
  consuming func result() -> SimulationRun {
    var waits = LockStatistics()
    let totals = lock.totals
    waits.waits = totals.waits
    waits.falseWaits = totals.falseWaits
    waits.waitP50Nanoseconds = min(totals.lengths.quantile(0.5), totals.longest)
    waits.waitP99Nanoseconds = min(totals.lengths.quantile(0.99), totals.longest)
    waits.waitMaxNanoseconds = totals.longest
    for operation in OperationKind.allCases {
      for blocker in OperationKind.allCases.map(Optional.some) + [nil] {
        let cell = totals.cells[
          Int(operation.rawValue) * 33 + Int(blocker?.rawValue ?? LockModel.nobody)]
        if cell.waits == 0 && cell.nanoseconds == 0 { continue }
        waits.waitSeconds += Double(cell.nanoseconds) / 1e9
        waits.falseWaitSeconds += Double(cell.falseNanoseconds) / 1e9
        waits.blocked.append(
          .init(
            operation: operation, blocker: blocker, waits: cell.waits,
            waitSeconds: Double(cell.nanoseconds) / 1e9,
            falseWaitSeconds: Double(cell.falseNanoseconds) / 1e9))
      }
    }
    return SimulationRun(
      policy: lock.policy, cores: cores, nanoseconds: lastEnd, busyNanoseconds: busyNanoseconds,
      readyNanoseconds: readyNanoseconds, orderNanoseconds: orderNanoseconds, waits: waits,
      waitLengths: totals.lengths.byPowerOfTwo, events: events, chains: longestChains,
      chainCount: chainWaits.count)
  }
}
