// SPDX-License-Identifier: Apache-2.0
//
// What is simulated: for each thread its steps with their times, and what each has to wait for.

/// A recording, made ready to be simulated any number of times.
public struct SimulationProgram: Sendable {
  /// Where the times come from.
  public enum Calibration: Sendable, Equatable {
    /// Scheduler events are recorded: time between operations is processor time.
    case full
    /// They are not: time between operations is time that passed, whatever the thread did in it.
    case none
  }

  /// What a mapping is, as far as it decides which VMAs merge.
  struct Attributes: Hashable, Sendable {
    /// Rights (3 bits), shared (8), grows down (16), charged (32).
    var flags: UInt32
    /// 0 = anonymous memory, else the number of a file or of an object.
    var object: UInt32
    /// First page of the mapping less its first page in the object.
    var delta: Int64

    static let shared: UInt32 = 8
    static let growsDown: UInt32 = 16
    static let charged: UInt32 = 32
  }

  /// "`thread` has finished this many steps": thread in bits 32-62, steps in bits 0-31; bit 63: the last one of its
  /// step.
  typealias Dependency = UInt64

  var steps: SimulationSteps
  var dependencies: [Dependency] = []
  /// Threads that begin with the simulation (after a pause of their own).
  var roots: [Int] = []
  var attributes: [Attributes] = []
  var moves: [SimulationMove] = []
  /// The VMAs at the start.
  var areas: [(start: UInt64, end: UInt64, attributes: UInt32)] = []

  public internal(set) var calibration = Calibration.none
  /// Operations that take the lock.
  public internal(set) var operations = 0
  /// How long the recording ran, in nanoseconds.
  public internal(set) var recordedNanoseconds: UInt64 = 0
  /// Processors of the machine that it was made on; nil if it does not say.
  public internal(set) var processors: Int?
  /// Whether hold times are recorded holds of the kernel's lock (else the length of the calls).
  public internal(set) var hasRecordedHolds = false
  /// Time that the recorded threads were not running and not ready, in nanoseconds, summed: it stays.
  public internal(set) var blockedNanoseconds: UInt64 = 0
  /// Time that they waited for a processor: taken out.
  public internal(set) var readyNanoseconds: UInt64 = 0
  /// Time that they waited for the kernel's lock: taken out.
  public internal(set) var lockWaitNanoseconds: UInt64 = 0
  /// Time that they ran.
  public internal(set) var runningNanoseconds: UInt64 = 0
  /// Acquisitions of the kernel's lock that belong to no recorded call or fault: they are not simulated.
  public internal(set) var strayAcquisitions = 0
  /// What it took to pass the kernel's lock on.
  public internal(set) var passing = PassingTimes()
  /// Names of the threads, for traces.
  public internal(set) var threadNames: [String] = []

  /// Call chains that runs refer to by number; none where they are not recorded.
  public internal(set) var chains = CallChains()

  init(threads: Int, chains: CallChains = CallChains()) {
    steps = SimulationSteps(threads: threads, hasChains: !chains.isEmpty)
    self.chains = chains
  }

  /// The number of threads.
  public var threadCount: Int { steps.threadCount }

  /// The number of steps, pauses and starts of threads included.
  public var stepCount: Int { steps.count }

  /// The same without what is simulated.
  var withoutSteps: SimulationProgram {
    var rest = self
    rest.steps = SimulationSteps(threads: threadCount)
    (rest.dependencies, rest.moves, rest.attributes, rest.areas) = ([], [], [], [])
    return rest
  }

  /// The most virtual processors that a simulation of it may have, and none beyond 64: without scheduler events not
  /// more than it was recorded on, which are 2 where the recording does not say.
  public var mostCores: Int { calibration == .full ? 64 : min(64, processors ?? 2) }
}
