// SPDX-License-Identifier: Apache-2.0
//
// Explores a program, and says what was found.

import CExplorer
import ExploredRangeLocks

/// How stores reach memory.
public enum MemoryModel: String, Sendable, CaseIterable {
  /// At once.
  case sequential
  /// Through a buffer per thread, as on x86.
  case storeBuffers = "store buffers"
}

/// What a search remembers so that it runs nothing twice. See `CExplorer.h`.
public enum SearchMemory: String, Sendable {
  case sleepSets = "sleep sets"
  case pasts, states
}

/// How far an exploration goes.
public struct ExplorationBounds: Sendable {
  public var model: MemoryModel
  public var memory: SearchMemory
  /// Preemptions of a thread that could go on; nil = all interleavings.
  public var preemptions: Int?
  /// Waits that end for no reason.
  public var spuriousWakeUps: Int
  /// Executions; nil = as many as there are.
  public var executions: Int?

  public init(
    _ model: MemoryModel, memory: SearchMemory = .states, preemptions: Int?,
    spuriousWakeUps: Int = 0, executions: Int? = nil
  ) {
    self.model = model
    self.memory = memory
    self.preemptions = preemptions
    self.spuriousWakeUps = spuriousWakeUps
    self.executions = executions
  }
}

extension ExplorationBounds: CustomStringConvertible {
  public var description: String {
    let preempted = preemptions.map { "at most \($0) preemptions" } ?? "all interleavings"
    return "\(model.rawValue), \(memory.rawValue), \(preempted)"
      + (spuriousWakeUps > 0 ? ", \(spuriousWakeUps) spurious wake-up" : "")
  }
}

/// What went wrong, and how to see it again.
public struct ExplorationFailure: Sendable {
  public let message: String
  public let schedule: String
  /// The operations, one a line.
  public let trace: String
}

/// The result of one exploration.
public struct ExplorationReport: Sendable {
  public let program: ExploredProgram
  public let bounds: ExplorationBounds
  public let executions: Int
  public let complete: Int
  public let operations: Int
  public let states: Int
  /// Whether everything within the bounds was run.
  public let isExhaustive: Bool
  public let failure: ExplorationFailure?

  /// One line; a failure with all that is needed to replay it.
  public var summary: String {
    let head =
      "\(program) [\(bounds)]: \(executions) executions, \(operations) operations"
      + (bounds.memory == .sleepSets ? "" : ", \(states) states")
      + (isExhaustive || failure != nil ? "" : ", stopped by its limit")
    guard let failure else { return head }
    let mistake = PlantedMistake.all.first { $0.id == activeMistake }
    return """
      \(head)
      FAILS: \(failure.message)
      replay: ExploreRangeLocks replay \(mistake.map { "--mistake \($0.name) " } ?? "")\
      --subject \(program.subject.rawValue) \
      --\(bounds.model == .sequential ? "sequential" : "buffers") \
      '\(program)' '\(failure.schedule)'
      \(failure.trace)
      """
  }
}

/// Whether the pool is where it has to be; explorations run one at a time.
private let poolIsMade: Void = Inspection.makePool()

extension ExploredProgram {
  /// Runs every schedule of the program within the bounds.
  public func explore(_ bounds: ExplorationBounds) -> ExplorationReport {
    withRun(bounds) { run in
      let result = rx_explore(&run)
      var failure: ExplorationFailure?
      if let message = result.failure, let schedule = result.schedule {
        let text = String(cString: schedule)
        let said = String(cString: message)
        let again = rx_replay(&run, text)
        failure = ExplorationFailure(
          message: said, schedule: text, trace: again.trace.map { String(cString: $0) } ?? "")
      }
      return ExplorationReport(
        program: self, bounds: bounds, executions: Int(result.executions),
        complete: Int(result.complete), operations: Int(result.steps), states: Int(result.states),
        isExhaustive: result.exhausted, failure: failure)
    }
  }

  /// Explores with 0, 1, ... preemptions: a failure is found with the fewest that it needs.
  public func exploreUpwards(to preemptions: Int, _ model: MemoryModel, spuriousWakeUps: Int = 0)
    -> ExplorationReport
  {
    for bound in 0..<preemptions {
      let report = explore(
        ExplorationBounds(model, preemptions: bound, spuriousWakeUps: spuriousWakeUps))
      if report.failure != nil { return report }
    }
    return explore(
      ExplorationBounds(model, preemptions: preemptions, spuriousWakeUps: spuriousWakeUps))
  }

  /// Runs one schedule; nil if nothing fails in it.
  public func replay(_ schedule: String, _ model: MemoryModel) -> (message: String?, trace: String)
  {
    withRun(ExplorationBounds(model, preemptions: nil, spuriousWakeUps: 16)) { run in
      let result = rx_replay(&run, schedule)
      return (
        result.failure.map { String(cString: $0) }, result.trace.map { String(cString: $0) } ?? ""
      )
    }
  }

  private func withRun<Result>(
    _ bounds: ExplorationBounds, _ body: (inout rx_program) -> Result
  ) -> Result {
    _ = poolIsMade
    let run = ProgramRun(self)
    return withExtendedLifetime(run) {
      var engine = rx_program(
        threads: UInt32(threads.count),
        store_buffers: bounds.model == .storeBuffers,
        remember: UInt32(
          bounds.memory == .sleepSets
            ? RX_SLEEP_SETS : bounds.memory == .pasts ? RX_PASTS : RX_STATES),
        preemptions: bounds.preemptions.map(Int32.init) ?? -1,
        spurious: UInt32(bounds.spuriousWakeUps),
        deadlines_rescue: deadlinesRescue,
        second_looks_rescue: bounds.model == .storeBuffers,
        execution_limit: UInt64(bounds.executions ?? 0),
        step_limit: 2000,
        begin: { theRun($0).checker.reset() },
        body: { theRun($0).body($1) },
        end: { theRun($0).end() },
        event: { context, thread, event in
          if event == Inspection.queuedEvent { theRun(context).checker.queued(thread: thread) }
        },
        context: Unmanaged.passUnretained(run).toOpaque())
      return body(&engine)
    }
  }
}

private func theRun(_ context: UnsafeMutableRawPointer?) -> ProgramRun {
  Unmanaged<ProgramRun>.fromOpaque(context!).takeUnretainedValue()
}
