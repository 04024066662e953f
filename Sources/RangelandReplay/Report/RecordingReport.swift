// SPDX-License-Identifier: Apache-2.0
//
// All that is known of one recording, for a page: what it waited, what simulations came to, what operations cost.

import Rangeland

/// One recording and what was found out about it.
public struct RecordingReport: Sendable {
  /// What one kind of operation costs, by policy; nanoseconds, nil = it was not done.
  public struct Cost: Sendable {
    public var operation: String
    public var count: Int
    public var nanoseconds: [UInt64?]

    public init(operation: String, count: Int, nanoseconds: [UInt64?]) {
      self.operation = operation
      self.count = count
      self.nanoseconds = nanoseconds
    }
  }

  /// The file's name without folders.
  public var name: String
  /// The program that was recorded, and how.
  public var recorded: String
  public var note: String
  /// Without its steps.
  public var program: SimulationProgram
  /// nil if the recording does not tell.
  public var waits: RecordedWaits?
  public var runs: [SimulationRun]
  public var verdict: Verdict
  public var activity: ActivityMap
  /// Where `.linux` places what the program left to the kernel; nil if that was not asked.
  public var placement: PlacementAgreement?
  /// The heads of the columns of `costs`.
  public var costSubjects: [String] = []
  public var costs: [Cost] = []
  /// What is to be said of the costs.
  public var costNote = ""

  /// - Parameter name: of the recording's file.
  public init(
    name: String, _ recording: Recording, _ program: SimulationProgram, runs: [SimulationRun]
  ) {
    self.name = name
    recorded = recording.info.program
    note = recording.info.note
    // What is left of it is printed; the steps of a large one are as large as a replay.
    self.program = program.withoutSteps
    waits = RecordedWaits(recording, program)
    self.runs = runs
    verdict = Verdict(program, waits, runs)
    activity = ActivityMap(recording, waits?.all ?? [])
  }

  /// The numbers of processors that were simulated, ascending.
  public var cores: [Int] { Set(runs.map(\.cores)).sorted() }

  /// The policies that were simulated.
  public var policies: [LockPolicy] {
    runs.reduce(into: []) { if !$0.contains($1.policy) { $0.append($1.policy) } }
  }

  /// The run of a policy on a number of processors.
  public func run(_ policy: LockPolicy, _ cores: Int) -> SimulationRun? {
    runs.first { $0.policy == policy && $0.cores == cores }
  }
}
