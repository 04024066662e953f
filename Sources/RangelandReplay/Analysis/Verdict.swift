// SPDX-License-Identifier: Apache-2.0
//
// What the figures of a recording come to, in one or two sentences.

import Foundation
import Rangeland

/// The verdict on one recording.
public struct Verdict: Sendable, Equatable {
  /// How much the lock costs the program, of its run time.
  public enum Weight: String, Sendable, Equatable {
    /// Less than 1 in 100.
    case nothing
    /// Less than 5 in 100.
    case little
    /// Less than 20 in 100.
    case noticeable
    case heavy

    init(_ share: Double) {
      self = share < 0.01 ? .nothing : share < 0.05 ? .little : share < 0.2 ? .noticeable : .heavy
    }
  }

  public var weight: Weight
  /// One or two sentences.
  public var text: String

  /// - Parameters:
  ///   - waits: nil if they are not recorded.
  ///   - runs: of all policies on some numbers of processors; they may be empty.
  public init(_ program: SimulationProgram, _ waits: RecordedWaits?, _ runs: [SimulationRun]) {
    let cores = runs.map(\.cores).max() ?? 0
    func run(_ policy: LockPolicy, _ cores: Int) -> SimulationRun? {
      runs.first { $0.policy == policy && $0.cores == cores }
    }
    // Linux of today against the range lock, where there are the most processors.
    let today = run(.perVMA, cores)
    let ranged = run(.ranged, cores)
    var gain = 0.0
    if let today, let ranged, today.nanoseconds > 0 {
      gain = 1 - Double(ranged.nanoseconds) / Double(today.nanoseconds)
    }
    // Without a recorded wait the simulated one on the fewest processors stands in for it.
    let share: Double
    var first: String
    let seconds = Self.seconds(program.recordedNanoseconds)
    if let waits {
      share = waits.share
      first =
        "of a run of \(seconds) its threads waited \(Self.seconds(waits.nanoseconds)) for the kernel's mmap_lock, "
        + "\(Self.percent(share)) of the "
        + (waits.busyNanoseconds == nil
          ? "run time, summed over them" : "time that they wanted to run")
      if waits.nanoseconds > 0 && share >= 0.01 {
        first +=
          " (\(Self.percent(Double(waits.falseNanoseconds) / Double(waits.nanoseconds))) of it falsely: nobody ahead "
          + "worked on the same pages)"
      }
    } else if let few = runs.filter({ $0.policy == .perVMA }).min(by: { $0.cores < $1.cores }) {
      let wanted = Double(few.busyNanoseconds + few.readyNanoseconds) + few.waits.waitSeconds * 1e9
      // Without processor time the run itself is what there is to weigh against.
      let whole = program.calibration == .full ? wanted : Double(few.nanoseconds)
      share = whole > 0 ? few.waits.waitSeconds * 1e9 / whole : 0
      first =
        "what the program waited is not recorded; simulated on \(few.cores) processors under .perVMA its threads wait "
        + "\(Self.seconds(UInt64(few.waits.waitSeconds * 1e9))) in all in a run of \(Self.seconds(few.nanoseconds))"
      if program.calibration == .full {
        first += ", \(Self.percent(share)) of the time that they want to run"
      }
    } else {
      share = 0
      first = "what the program waited is not recorded, and nothing was simulated"
    }
    // Without processor time a share is one of the run time, summed over threads: no measure of what it cost.
    weight = Weight(program.calibration == .full ? max(share, gain) : gain)
    // Without recorded holds those of the simulation have the recorded waits in them, and the tracer's own time.
    let subject =
      program.hasRecordedHolds
      ? "Locking costs this program " : "Locking costs this program at most, and likely less, "
    let degree =
      switch weight {
      case .nothing: "nothing to speak of: "
      case .little: "little: "
      case .noticeable: "a noticeable part of its time: "
      case .heavy: "much of its time: "
      }
    text = (weight == .nothing ? "Locking costs this program " : subject) + degree + first + "."
    if let today, let ranged, cores > 0 {
      let difference =
        abs(gain) < 0.0005
        ? "as long"
        : gain > 0
          ? "\(Self.percent(gain)) less" : "\(Self.percent(-gain)) more"
      text +=
        " Simulated on \(cores) processors it takes \(Self.seconds(today.nanoseconds)) under .perVMA (Linux today) and "
        + "\(Self.seconds(ranged.nanoseconds)) under .ranged, \(difference)"
      text += program.calibration == .full ? "." : " (uncalibrated: no scheduler events)."
    }
    if weight != .nothing && !program.hasRecordedHolds {
      text +=
        " Calls hold the lock for their whole length here, their own waits and the tracer's time in it: a bound, not a measure."
    }
  }

  /// A time as people write it.
  static func seconds(_ nanoseconds: UInt64) -> String {
    let value = Double(nanoseconds)
    if nanoseconds == 0 { return "0 s" }
    if value < 1e4 { return "\(nanoseconds) ns" }
    if value < 1e6 { return String(format: "%.0f us", value / 1e3) }
    if value < 1e7 { return String(format: "%.2f ms", value / 1e6) }
    if value < 1e9 { return String(format: "%.0f ms", value / 1e6) }
    return String(format: "%.2f s", value / 1e9)
  }

  static func percent(_ share: Double) -> String {
    if share == 0 { return "0 %" }
    if share < 0.0001 { return "less than 0.01 %" }
    return String(format: share < 0.1 ? "%.2f %%" : "%.0f %%", share * 100)
  }
}
