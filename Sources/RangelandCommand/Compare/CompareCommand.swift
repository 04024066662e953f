// SPDX-License-Identifier: Apache-2.0
//
// `rangeland compare [FILE]...`: recordings under every policy.

import ArgumentParser
import Rangeland
import RangelandReplay

struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract:
      "What the address-space lock cost a recorded program, and what it would cost under each policy.",
    discussion: """
      Recorded: what the kernel made the program wait for its lock. Simulated: the recording's own timing under each \
      policy on more processors (rangeland simulate has the options). Measured: what an operation costs. Last comes \
      the verdict. docs/insight.md says what each figure means.

      For the third part it replays what a program did to its address space on a Rangeland AddressSpace: one thread for each recorded \
      thread, as fast as the recorded order of overlapping operations allows. Prints for every policy how many \
      operations a second were done, what an operation costs, how long threads waited for locks, and which \
      operations waited for which. A wait is false when nobody ahead worked on the same pages.

      Exit status 2: an operation came to something else than the recording says.
      """)

  @Argument(help: "Recordings; without any, the one that ships with Rangeland.")
  var files: [String] = []

  @Option(help: "Runs of every policy that are counted; figures are medians.")
  var rounds = 5

  @Option(
    help: ArgumentHelp(
      "Write a page with all of it, and pictures, that a browser shows.", valueName: "file"))
  var html: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if rounds < 1 || rounds > 1000 {
      throw ValidationError("--rounds takes a number from 1 to 1000")
    }
  }

  func run() throws {
    let paths = try files.isEmpty ? [ShippedRecordings.path()] : files
    // All are read first: a bad one is told before the work begins.
    let recordings = try paths.map { path in (path, try Recording(path: path)) }
    var results: [ComparedRecording] = []
    for (path, recording) in recordings { results.append(try compare(path, recording)) }
    if let html { try HTMLReport.write(results.map(\.page), to: html) }
    let report = CompareReport(recordings: results)
    try Terminal.print(json ? report.json() : report.text())
    if results.contains(where: { $0.comparison.mismatches > 0 }) { throw Difference() }
  }

  private func compare(_ path: String, _ recording: Recording) throws -> ComparedRecording {
    let plan = ReplayPlan(recording)
    guard plan.operations > 0 else {
      throw RecordingError(
        .nothingRecorded, file: path, at: .file, "the recording holds no operation to replay",
        advice: "record a program that maps memory or touches pages")
    }
    let settings = SimulationSettings()
    let simulated = try SimulatedRecording(path, recording, settings: settings)
    let most = simulated.program.mostCores
    let runs = try simulated.run(
      cores: Simulation.usualCores.filter { $0 <= most }, settings: settings)
    let report = RecordingReport(name: simulated.name, recording, simulated.program, runs: runs)
    var progress = Progress()
    defer { progress.clear() }
    do {
      let comparison = try PolicyComparison(
        plan, rounds: rounds, progress: { progress.report("\(path): \($0)") },
        isCancelled: { Interruption.isRequested })
      return ComparedRecording(
        path: path, program: recording.info.program, threads: recording.threads.count,
        comparison: comparison, report: report, settings: settings)
    } catch ReplayError.interrupted {
      throw Interrupted()
    } catch {
      throw OutputFailure(reason: "\(path): \(error)")
    }
  }
}

/// One recording and what became of it.
struct ComparedRecording {
  var path: String
  var program: String
  var threads: Int
  var comparison: PolicyComparison
  /// What it waited, what simulations came to, and the verdict.
  var report: RecordingReport
  var settings: SimulationSettings

  /// What simulations came to.
  var simulation: SimulationReport {
    SimulationReport(
      program: report.program, runs: report.runs,
      leftOut: Simulation.usualCores.filter { $0 > report.program.mostCores }, settings: settings)
  }

  /// All of it for a page.
  var page: RecordingReport {
    var page = report
    page.costSubjects = comparison.rows.map { ".\($0.policy.rawValue)" }
    page.costs = OperationKind.allCases.compactMap { operation in
      let found = comparison.rows.map { row in
        row.byOperation.first { $0.operation == operation }
      }
      guard let count = found.compactMap({ $0?.count }).max() else { return nil }
      return RecordingReport.Cost(
        operation: operation.name, count: count, nanoseconds: found.map { $0?.medianNanoseconds })
    }
    return page
  }

  /// The file's name without folders.
  var name: String { path.split(separator: "/").last.map(String.init) ?? path }
}
