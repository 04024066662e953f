// SPDX-License-Identifier: Apache-2.0
//
// What a replay does: the steps of every thread and what each has to wait for.
//
// Guarantee: the steps, ordered as the planner placed them, are one history of the program in which every call
// has the result that was recorded; a step depends only on steps before it there, so a replay always ends.

/// A recording, made ready to be replayed any number of times.
public struct ReplayPlan: Sendable {
  /// "`thread` has finished this many steps."
  struct Dependency: Hashable, Sendable {
    private let threadNumber: UInt32
    private let stepCount: UInt32

    init(thread: Int, steps: Int) {
      threadNumber = UInt32(thread)
      stepCount = UInt32(steps)
    }

    var thread: Int { Int(threadNumber) }
    var steps: Int { Int(stepCount) }
  }

  /// The mappings at the start, as steps to be done before the clock runs.
  public internal(set) var setup: [ReplayStep] = []
  /// All steps, thread by thread.
  public internal(set) var steps = ReplaySteps()
  /// What the steps that are calls call.
  var calls: [ReplayCall] = []
  /// How long the files that stand for the recorded ones are, by number, in bytes; 0 = never mapped. One more than the
  /// recording has: the last stands for those without a name.
  var fileSizes: [UInt64] = []
  /// The steps of each thread.
  public internal(set) var threads: [Range<Int>] = []
  var dependencies: [Dependency] = []
  /// Threads that nobody in the recording started: they begin with the replay.
  public internal(set) var roots: [Int] = []
  /// Steps that are operations on the space.
  public internal(set) var operations = 0
  /// Calls and mappings that the product does not have, by kind, applied by their recorded effect on the
  /// layout (which may be none). Sorted by kind.
  public internal(set) var substituted: [(kind: String, count: Int)] = []
  /// Pairs of operations on the same pages whose recorded times overlap, so that their order was concluded
  /// from their results or, where those allow both, from the usual one.
  public internal(set) var ambiguousPairs = 0
  /// The mappings at the end.
  public internal(set) var finalLayout: [RecordedArea] = []
  /// The most threads that the recording had at one moment, or all of them where it does not tell.
  public internal(set) var threadsAtOnce = 0

  /// Where `.linux` places what the program left to the kernel; nil if that was not asked.
  public internal(set) var placement: PlacementAgreement?

  /// Steps that wait for steps of other threads.
  public var orderedSteps: Int { steps.count { !$0.dependencies.isEmpty } }
}
