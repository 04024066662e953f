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
      operations waited for which. A wait is false when nobody ahead worked on the same pages. Beside stands the kernel \
      itself: the same calls in a helper process, at other addresses.

      Exit status 2: an operation came to something else than the recording says.
      """)

  @Argument(help: "Recordings; without any, one of those that ship with Rangeland.")
  var files: [String] = []

  @Flag(help: "Compares all recordings of programs that ship with Rangeland, and sums up.")
  var all = false

  @Option(help: "Runs of every policy that are counted; figures are medians.")
  var rounds = 5

  @Option(
    help: ArgumentHelp(
      "Write a page with all of it, and pictures, that a browser shows.", valueName: "file"))
  var html: String?

  @Option(
    help: ArgumentHelp(
      "Refuse recordings whose replay holds more memory than this. (default: what is available)",
      valueName: "MiB"))
  var memory: Int?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if all && !files.isEmpty { throw ValidationError("--all takes no recordings") }
    if rounds < 1 || rounds > 1000 {
      throw ValidationError("--rounds takes a number from 1 to 1000")
    }
    if let memory, memory < 1 { throw ValidationError("--memory takes a number above 0") }
  }

  func run() throws {
    let shipped = all ? ShippedRecordings.programs : [ShippedRecordings.fileName]
    let paths = try files.isEmpty ? shipped.map { try ShippedRecordings.path($0) } : files
    // All are read first: a bad one is told before the work begins. None is kept: they may be large.
    if paths.count > 1 {
      for path in paths { try checkMemory(path, try Recording(path: path)) }
    }
    var results: [ComparedRecording] = []
    for path in paths { results.append(try compare(path)) }
    if let html { try HTMLReport.write(results.map(\.page), to: html) }
    let report = CompareReport(recordings: results)
    try Terminal.print(json ? report.json() : report.text() + hint)
    if results.contains(where: { $0.comparison.mismatches > 0 }) { throw Difference() }
  }

  /// Refuses a recording whose pages are more than may be held.
  private func checkMemory(_ path: String, _ recording: Recording) throws {
    let allowed = memory.map { UInt64($0) << 20 } ?? RecordedMachine.availableMemory
    let needed = recording.peakResidentBytes
    guard let allowed, needed > allowed else { return }
    throw RecordingError(
      .cannotOpen, file: path, at: .file,
      "a replay holds up to \(needed >> 20) MiB of pages at once, and \(allowed >> 20) MiB may be used",
      advice: memory == nil
        ? "free memory, or record a shorter run; rangeland simulate needs none of it"
        : "give --memory more, or record a shorter run; rangeland simulate needs none of it")
  }

  /// What else there is, for who named no recording.
  private var hint: String {
    func names(_ files: some Sequence<String>) -> String {
      files.map { $0.split(separator: ".").first.map(String.init) ?? $0 }.joined(separator: ", ")
    }
    let written = names(ShippedRecordings.written)
    if all {
      return "\nleft out, since it was written to make every call: \(written)\n"
    }
    if !files.isEmpty { return "" }
    let others = names(ShippedRecordings.programs.dropFirst())
    return "\nother recordings ship: \(others); `rangeland compare --all` shows them too\n"
  }

  private func compare(_ path: String) throws -> ComparedRecording {
    let settings = SimulationSettings()
    let (report, plan, threads) = try prepare(path, settings)
    let progress = TimedProgress(path)
    defer { progress.clear() }
    do {
      let comparison = try PolicyComparison(
        plan, rounds: rounds, progress: { progress.report($1, doing: $0) },
        isCancelled: { Interruption.isRequested })
      return ComparedRecording(
        path: path, program: report.recorded, threads: threads, comparison: comparison,
        report: report, settings: settings)
    } catch ReplayError.interrupted {
      throw Interrupted()
    } catch {
      throw OutputFailure(reason: "\(path): \(error)")
    }
  }
}

extension CompareCommand {
  /// All that needs the recording, which is let go then: a replay of a large one needs its memory.
  private func prepare(
    _ path: String, _ settings: SimulationSettings
  ) throws -> (report: RecordingReport, plan: ReplayPlan, threads: Int) {
    let recording = try Recording(path: path)
    try checkMemory(path, recording)
    let nothing = RecordingError(
      .nothingRecorded, file: path, at: .file, "the recording holds no operation to replay",
      advice: "record a program that maps memory or touches pages")
    if recording.calls.isEmpty && recording.faults.isEmpty { throw nothing }
    var report = try simulate(path, recording, settings)
    let plan = ReplayPlan(recording, placing: true)
    report.placement = plan.placement
    if plan.operations == 0 { throw nothing }
    return (report, plan, recording.threads.count)
  }

  private func simulate(
    _ path: String, _ recording: Recording, _ settings: SimulationSettings
  ) throws -> RecordingReport {
    let simulated = try SimulatedRecording(path, recording, settings: settings)
    let most = simulated.program.mostCores
    let runs = try simulated.run(
      cores: Simulation.usualCores.filter { $0 <= most }, settings: settings)
    return RecordingReport(name: simulated.name, recording, simulated.program, runs: runs)
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
    let kernel = comparison.kernel.figures
    if kernel != nil { page.costSubjects.append("the kernel") }
    page.costNote = CompareReport.kernel(comparison.kernel)
    page.costs = OperationKind.allCases.compactMap { operation in
      let found = (comparison.rows.map(\.byOperation) + (kernel.map { [$0.byOperation] } ?? []))
        .map { costs in costs.first { $0.operation == operation } }
      guard let count = found.compactMap({ $0?.count }).max() else { return nil }
      return RecordingReport.Cost(
        operation: operation.name, count: count, nanoseconds: found.map { $0?.medianNanoseconds })
    }
    return page
  }

  /// The file's name without folders.
  var name: String { path.split(separator: "/").last.map(String.init) ?? path }
}
