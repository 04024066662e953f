// SPDX-License-Identifier: Apache-2.0
//
// A recording as the simulator takes it, and its runs with a line that tells how far they are.

import CRangeland
import Rangeland
import RangelandReplay

struct SimulatedRecording {
  /// The file's name without folders.
  var name: String
  private var path: String
  /// The program that was recorded.
  var recorded: String
  var program: SimulationProgram

  /// Reads and plans; the recording itself is let go.
  init(_ path: String, settings: SimulationSettings) throws {
    let recording = try Recording(path: path)
    if Interruption.isRequested { throw Interrupted() }
    try self.init(path, recording, settings: settings)
  }

  init(_ path: String, _ recording: Recording, settings: SimulationSettings) throws {
    self.path = path
    name = path.split(separator: "/").last.map(String.init) ?? path
    recorded = recording.info.program
    program = SimulationProgram(recording, settings: settings)
    guard program.operations > 0 else {
      throw RecordingError(
        .nothingRecorded, file: path, at: .file, "the recording holds no operation to simulate",
        advice: "record a program that maps memory or touches pages")
    }
  }

  /// All runs, policies first.
  func run(
    policies: [LockPolicy] = LockPolicy.allCases, cores: [Int], settings: SimulationSettings
  ) throws -> [SimulationRun] {
    let progress = TimedProgress("\(path): simulating")
    defer { progress.clear() }
    let runs = Simulation.runAll(program, policies: policies, cores: cores, settings: settings) {
      progress.report($0)
      return !Interruption.isRequested
    }
    guard let runs else { throw Interrupted() }
    return runs
  }
}

/// A line with the share of the work that is behind and an estimate of the time left.
final class TimedProgress: @unchecked Sendable {
  // Sendable: one thread at a time reports.
  private var progress = Progress()
  private let title: String
  private let start = rl_monotonic_ns()

  init(_ title: String) { self.title = title }

  /// - Parameter doing: what is done now.
  func report(_ share: Double, doing: String? = nil) {
    let elapsed = Double(rl_monotonic_ns() - start) / 1e9
    let left = share > 0.02 ? ", about \(Int(elapsed / share * (1 - share)) + 1) s left" : ""
    let now = doing.map { ", \($0)" } ?? ""
    progress.report("\(title): \(Int(share * 100)) %\(left)\(now)")
  }

  func clear() { progress.clear() }
}
