// SPDX-License-Identifier: Apache-2.0
//
// What the kernel made a program wait for its mmap_lock, for which operation, and behind which.
//
// A wait is an acquisition that found an incompatible one ahead: one that was asked for earlier and not given back.
// What an acquisition takes that finds nobody ahead is the cost of the lock, not a wait. A wait is false where none of
// those ahead worked on the same pages: a range lock would not have made it wait.
// Mechanism: one pass over the acquisitions in the order of their time, with a list of those that are under way.
// Cost: for each acquisition a look at those under way, of which a thread has one.

import Rangeland

/// The waits for the kernel's lock in one recording. Times in nanoseconds.
public struct RecordedWaits: Sendable {
  /// The waits of one operation behind another.
  public struct Pair: Sendable {
    /// The operation that waited; nil = not known: a call that is not recorded.
    public var operation: OperationKind?
    /// The operation ahead when the wait began; nil = not known.
    public var blocker: OperationKind?
    public var waits: UInt64
    public var nanoseconds: UInt64
    public var falseNanoseconds: UInt64
  }

  /// Acquisitions, waits among them or not.
  public private(set) var acquisitions = 0
  public private(set) var waits: UInt64 = 0
  public private(set) var nanoseconds: UInt64 = 0
  /// Waits that were false for their whole length.
  public private(set) var falseWaits: UInt64 = 0
  /// Time at instants at which nobody ahead worked on the same pages.
  public private(set) var falseNanoseconds: UInt64 = 0
  /// Waits of which it is not known, because somebody's pages are not.
  public private(set) var unclassifiedWaits: UInt64 = 0
  public private(set) var p50: UInt64 = 0
  public private(set) var p99: UInt64 = 0
  public private(set) var longest: UInt64 = 0
  /// Most time first.
  public private(set) var pairs: [Pair] = []
  /// Waits by call chain, the `chainLimit` that waited longest; empty where chains are not recorded.
  public private(set) var chains: [ChainWaits] = []
  /// How many call chains waited.
  public private(set) var chainCount = 0
  /// Waits by powers of two of their length, as in `SimulationRun`.
  public private(set) var lengths: [UInt64] = []
  /// How long the recording is.
  public private(set) var runNanoseconds: UInt64 = 0
  /// Time that threads ran, waited for a processor or waited for the lock, summed over threads; nil without scheduler
  /// events.
  public private(set) var busyNanoseconds: UInt64?
  /// The waits themselves: when, how long, where (nil = not known) and whether false; for pictures.
  public private(set) var all: [Wait] = []

  /// One wait.
  public struct Wait: Sendable {
    public var time: UInt64
    public var nanoseconds: UInt64
    public var address: UInt64?
    public var isFalse: Bool
  }

  /// Share of the time that the threads wanted to run; of the run time, summed over threads, where that is not known.
  public var share: Double {
    let whole = Double(busyNanoseconds ?? runNanoseconds)
    return whole > 0 ? Double(nanoseconds) / whole : 0
  }

  /// The waits of `recording`; nil if it does not tell (version 1, or made without the tracepoints).
  ///
  /// - Parameter program: made of the same recording; without it the time that threads wanted to run is not known.
  public init?(_ recording: Recording, _ program: SimulationProgram? = nil) {
    guard recording.info.eventClasses.contains(.acquisitions) else { return nil }
    acquisitions = recording.acquisitions.count
    runNanoseconds = recording.duration
    if let program, program.calibration == .full {
      busyNanoseconds =
        program.runningNanoseconds + program.readyNanoseconds + program.lockWaitNanoseconds
    }
    add(recording)
  }

  /// An acquisition under way.
  private struct Active {
    var user: LockUse
    var granted: UInt64
    var released: UInt64
    /// Until when it excludes readers; 0 for a reader.
    var writesUntil: UInt64
    var thread: Int
    var chain: Int?
  }

  private static let chainLimit = 100

  private mutating func add(_ recording: Recording) {
    struct Key: Hashable {
      var operation: OperationKind?
      var blocker: OperationKind?
    }
    var found: [Key: Pair] = [:]
    var histogram = LengthHistogram()
    var active: [Active] = []
    var users = LockUse.Cursors(recording)
    var tally = ChainWaits.Tally()
    let hasChains = recording.info.eventClasses.contains(.callChains)
    for acquisition in recording.acquisitions {
      let user = users.use(of: acquisition)
      let now = acquisition.time
      active.removeAll { $0.released <= now }
      var ahead: Active?
      var trueUntil: UInt64 = 0
      var isUnknown = false
      for other in active where other.thread != acquisition.thread {
        let ends = acquisition.isWrite ? other.released : other.writesUntil
        if ends <= now { continue }
        if ahead == nil { ahead = other }
        if let isTrue = user.overlaps(other.user) {
          if isTrue { trueUntil = max(trueUntil, min(ends, acquisition.granted)) }
        } else {
          isUnknown = true
        }
      }
      if acquisition.isGranted {
        let released = acquisition.released ?? .max
        active.append(
          Active(
            user: user, granted: acquisition.granted, released: released,
            writesUntil: acquisition.isWrite
              ? acquisition.downgradedAfter.map { acquisition.granted + $0 } ?? released : 0,
            thread: acquisition.thread, chain: acquisition.chain))
      }
      guard let ahead, acquisition.isGranted else { continue }
      let isTrue = trueUntil > now
      let falseTime =
        isUnknown && !isTrue ? 0 : acquisition.granted - max(now, trueUntil)
      waits += 1
      nanoseconds += acquisition.waited
      if isUnknown && !isTrue { unclassifiedWaits += 1 } else if !isTrue { falseWaits += 1 }
      falseNanoseconds += falseTime
      longest = max(longest, acquisition.waited)
      histogram.record(acquisition.waited)
      all.append(
        Wait(
          time: now, nanoseconds: acquisition.waited, address: user.range?.lowerBound,
          isFalse: !isTrue && !isUnknown))
      if hasChains {
        tally.add(
          .init(chain: acquisition.chain, operation: user.operation),
          behind: .init(chain: ahead.chain, operation: ahead.user.operation), acquisition.waited,
          falsely: falseTime)
      }
      let key = Key(operation: user.operation, blocker: ahead.user.operation)
      var pair =
        found[key]
        ?? Pair(
          operation: key.operation, blocker: key.blocker, waits: 0, nanoseconds: 0,
          falseNanoseconds: 0)
      pair.waits += 1
      pair.nanoseconds += acquisition.waited
      pair.falseNanoseconds += falseTime
      found[key] = pair
    }
    p50 = min(histogram.quantile(0.5), longest)
    p99 = min(histogram.quantile(0.99), longest)
    lengths = histogram.byPowerOfTwo
    chains = tally.longest(Self.chainLimit, recording.chains)
    chainCount = tally.count
    pairs = found.values.sorted {
      ($1.nanoseconds, $0.operation?.rawValue ?? 99, $0.blocker?.rawValue ?? 99)
        < ($0.nanoseconds, $1.operation?.rawValue ?? 99, $1.blocker?.rawValue ?? 99)
    }
  }
}
