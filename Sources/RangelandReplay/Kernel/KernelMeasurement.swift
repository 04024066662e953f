// SPDX-License-Identifier: Apache-2.0
//
// What the kernel made of a plan, over all rounds of a comparison.

import Rangeland

/// The kernel's figures beside those of the policies, or why there are none.
public enum KernelMeasurement: Sendable {
  case measured(Figures)
  /// The reason, in words.
  case unavailable(String)

  /// Medians over the counted runs.
  public struct Figures: Sendable {
    /// The run with the median time.
    public var timed: KernelRun
    public var byOperation: [ReplayRun.Operation]
    /// Over all counted runs.
    public var mismatches: Int
    public var examples: [String]
    /// The times of the runs, ascending, in nanoseconds.
    public var times: [UInt64]
    /// Operations and mappings at the start that have no place in the helper process, by kind, in a run. Sorted by kind.
    public var leftOut: [(kind: String, count: Int)]

    /// - Precondition: there is a run.
    init(_ runs: [KernelRun], leftOut: [OperationKind: Int]) {
      let byTime = runs.sorted { $0.nanoseconds < $1.nanoseconds }
      timed = byTime[byTime.count / 2]
      byOperation = timed.byOperation
      for index in byOperation.indices {
        let medians = runs.map { $0.byOperation[index].medianNanoseconds }.sorted()
        byOperation[index].medianNanoseconds = medians[medians.count / 2]
      }
      mismatches = runs.reduce(0) { $0 + $1.mismatches }
      examples = Array(runs.flatMap(\.examples).prefix(Mismatches.exampleLimit))
      times = byTime.map(\.nanoseconds)
      self.leftOut = leftOut.map { (kind: $0.key.name, count: $0.value) }
        .sorted { $0.kind < $1.kind }
    }
  }

  public var figures: Figures? {
    if case .measured(let figures) = self { figures } else { nil }
  }
}

/// The kernel's runs as a comparison makes them, one a round: after a failure no more.
struct KernelRounds {
  private var replay: KernelReplay?
  private var problem: String?
  private var runs: [KernelRun] = []

  init(_ plan: ReplayPlan, _ files: ReplayFiles) {
    do {
      replay = try KernelReplay(plan, files)
    } catch {
      if case .unavailable(let reason) = error { problem = reason }
    }
  }

  mutating func run(isCounted: Bool, _ isCancelled: () -> Bool) throws(ReplayError) {
    guard problem == nil, let replay else { return }
    do {
      let run = try replay.run(isCancelled: isCancelled)
      if isCounted { runs.append(run) }
    } catch {
      switch error {
      case .interrupted: throw .interrupted
      case .unavailable(let reason): problem = reason
      }
    }
  }

  var measurement: KernelMeasurement {
    if let problem { return .unavailable(problem) }
    guard let replay, !runs.isEmpty else { return .unavailable("no run was counted") }
    return .measured(KernelMeasurement.Figures(runs, leftOut: replay.leftOut))
  }
}
