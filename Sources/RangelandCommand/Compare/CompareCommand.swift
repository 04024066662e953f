// SPDX-License-Identifier: Apache-2.0
//
// `rangeland compare [FILE]...`: recordings under every policy.

import ArgumentParser
import RangelandReplay

struct CompareCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract: "Replay a recording under each lock policy, side by side.",
    discussion: """
      Replays what a program did to its address space on a Rangeland AddressSpace: one thread for each recorded \
      thread, as fast as the recorded order of overlapping operations allows. Prints for every policy how many \
      operations a second were done, what an operation costs, how long threads waited for locks, and which \
      operations waited for which. A wait is false when nobody ahead worked on the same pages.

      Exit status 2: an operation came to something else than the recording says.
      """)

  @Argument(help: "Recordings; without any, the one that ships with Rangeland.")
  var files: [String] = []

  @Option(help: "Runs of every policy that are counted; figures are medians.")
  var rounds = 5

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
    var progress = Progress()
    defer { progress.clear() }
    do {
      let comparison = try PolicyComparison(
        plan, rounds: rounds, progress: { progress.report("\(path): \($0)") },
        isCancelled: { Interruption.isRequested })
      return ComparedRecording(
        path: path, program: recording.info.program, threads: recording.threads.count,
        comparison: comparison)
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

  /// The file's name without folders.
  var name: String { path.split(separator: "/").last.map(String.init) ?? path }
}
