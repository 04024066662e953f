// SPDX-License-Identifier: Apache-2.0
//
// A recording under every policy and on the kernel itself, interleaved.
//
// Mechanism: every round runs each policy twice, once for the clock and once with statistics on, because counting
// waits costs time; then the kernel once. Figures are those of the median run of their kind.

import Rangeland

/// What a comparison of policies on one recording found.
public struct PolicyComparison: Sendable {
  /// One policy.
  public struct Row: Sendable {
    public var policy: LockPolicy
    /// The run with the median time among those without statistics.
    public var timed: ReplayRun
    /// The run with the median waiting time among those with statistics.
    public var counted: ReplayRun
    /// The median over the timed runs, by operation.
    public var byOperation: [ReplayRun.Operation]
    /// Over all runs of the policy.
    public var mismatches: Int
    /// Some of them in words.
    public var examples: [String]
    /// The times of the timed runs, ascending, in nanoseconds.
    public var times: [UInt64]
  }

  public var plan: ReplayPlan
  /// In the order of `LockPolicy.allCases`.
  public var rows: [Row]
  /// The running kernel with the same calls, in a helper process.
  public var kernel: KernelMeasurement
  public var rounds: Int

  /// Of the policies: the kernel may refuse today what it once allowed (a limit, a file's kind).
  public var mismatches: Int { rows.reduce(0) { $0 + $1.mismatches } }

  /// Plans of more operations are replayed under one policy only before it counts.
  private static let longPlan = 1_000_000

  /// Replays `plan` under each policy, `rounds` times each, after one run that is not counted. Of a long plan that run
  /// is one of the first policy alone: what is cold at first is not seen in the median of millions of operations, and
  /// not in the time of all of them.
  ///
  /// - Parameters:
  ///   - progress: told ten times a second what is done, and the share of all runs that is behind.
  ///   - isCancelled: asked ten times a second.
  /// - Precondition: `rounds > 0`.
  public init(
    _ plan: ReplayPlan, rounds: Int, policies: [LockPolicy] = LockPolicy.allCases,
    progress: (String, Double) -> Void, isCancelled: () -> Bool
  ) throws(ReplayError) {
    precondition(rounds > 0, "a comparison has at least one round")
    let memory = try Self.memory()
    let files = try ReplayFiles(sizes: plan.fileSizes)
    var timed: [LockPolicy: [ReplayRun]] = [:]
    var counted: [LockPolicy: [ReplayRun]] = [:]
    var onKernel = KernelRounds(plan, files)
    let warming = plan.operations > Self.longPlan ? 1 : policies.count
    let all = Double(
      warming + rounds * (2 * policies.count + 1) + (warming < policies.count ? 0 : 1))
    var done = 0.0
    var doing = ""
    func poll() -> Bool {
      progress(doing, done / all)
      return isCancelled()
    }
    for round in 0...rounds {
      for policy in round == 0 ? policies.prefix(warming) : policies[...] {
        doing = "round \(round)/\(rounds): \(policy)"
        let timedRun = try Self.run(
          plan, policy, memory, files, statistics: false, poll)
        done += 1
        // The first round makes the pages warm.
        if round == 0 { continue }
        timed[policy, default: []].append(timedRun)
        counted[policy, default: []].append(
          try Self.run(plan, policy, memory, files, statistics: true, poll))
        done += 1
      }
      if round == 0 && warming < policies.count { continue }
      doing = "round \(round)/\(rounds): the kernel"
      try onKernel.run(isCounted: round > 0, poll)
      done += 1
    }
    kernel = onKernel.measurement
    self.plan = plan
    self.rounds = rounds
    rows = policies.map { Self.row($0, timed[$0]!, counted[$0]!) }
  }

  private static func memory() throws(ReplayError) -> PhysicalMemory {
    do {
      return try PhysicalMemory()
    } catch {
      throw .noMemory
    }
  }

  private static func run(
    _ plan: ReplayPlan, _ policy: LockPolicy, _ memory: PhysicalMemory, _ files: ReplayFiles,
    statistics: Bool, _ isCancelled: () -> Bool
  ) throws(ReplayError) -> ReplayRun {
    let space: AddressSpace
    do {
      space = try AddressSpace(policy: policy, memory: memory, statistics: statistics)
    } catch {
      throw .noMemory
    }
    return try Replay(plan, space, files).run(isCancelled: isCancelled)
  }

  private static func row(
    _ policy: LockPolicy, _ timed: [ReplayRun], _ counted: [ReplayRun]
  ) -> Row {
    let byTime = timed.sorted { $0.nanoseconds < $1.nanoseconds }
    let byWaits = counted.sorted {
      ($0.statistics?.waitSeconds ?? 0) < ($1.statistics?.waitSeconds ?? 0)
    }
    let all = timed + counted
    var byOperation = byTime[byTime.count / 2].byOperation
    for index in byOperation.indices {
      let medians = timed.map { $0.byOperation[index].medianNanoseconds }.sorted()
      byOperation[index].medianNanoseconds = medians[medians.count / 2]
    }
    return Row(
      policy: policy, timed: byTime[byTime.count / 2], counted: byWaits[byWaits.count / 2],
      byOperation: byOperation, mismatches: all.reduce(0) { $0 + $1.mismatches },
      examples: Array(all.flatMap(\.examples).prefix(Mismatches.exampleLimit)),
      times: byTime.map(\.nanoseconds))
  }
}
