// SPDX-License-Identifier: Apache-2.0
//
// `rangeland import TEXT -o FILE`: perf's text to a recording.

import ArgumentParser
import RangelandReplay

struct ImportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import",
    abstract: "Make a recording from the text of `perf script`.",
    discussion: """
      docs/recording-format.md says how to record a program with perf. The text may hold several \
      processes; the recording holds one: the one with the most calls and faults, from its last \
      exec on, or the one that --process names.
      """)

  @Argument(help: "The text, or - for standard input.")
  var text: String

  @Option(name: .shortAndLong, help: "The recording to write, such as program.rangeland.")
  var output: String

  @Option(help: ArgumentHelp("The process to take.", valueName: "id"))
  var process: Int32?

  @Option(
    help: ArgumentHelp("How the recording was made, for those who read it.", valueName: "text"))
  var note = ""

  @Flag(help: "Print what was imported as JSON.")
  var json = false

  func run() throws {
    var progress = Progress()
    let (recording, report) = try Recording.importText(
      path: text, options: ImportOptions(process: process, note: note)
    ) { read in
      progress.report("\(text): \(read >> 20) MiB read")
      return !Interruption.isRequested
    }
    progress.clear()
    if Interruption.isRequested { throw Interrupted() }
    try recording.write(to: output)

    if report.lostEvents > 0 {
      Terminal.warn(
        "perf lost \(report.lostEvents) events: the recording has holes; record again with a "
          + "larger buffer (perf record -m)")
    }
    if report.otherProcesses > 0 && process == nil {
      Terminal.warn(
        "took process \(report.process) and left out \(report.otherProcesses) others "
          + "(--process takes another one)")
    }
    if recording.info.layoutOrigin == .inferred {
      Terminal.warn(
        "the text does not list the mappings at the start: they are inferred from faults and calls")
    }
    for omission in recording.info.omissions {
      Terminal.warn("left out: \(omission.count) \(omission.name)")
    }
    if json {
      try Terminal.print(
        JSON.document([
          "recording": .string(output), "lines": .unsigned(report.lines),
          "process": .integer(Int64(report.process)),
          "otherProcesses": .count(report.otherProcesses),
          "lostEvents": .unsigned(report.lostEvents),
          "threads": .count(recording.threads.count), "calls": .count(recording.calls.count),
          "faults": .count(recording.faults.count),
          "initialLayout": .string(recording.info.layoutOrigin.name),
        ]))
    } else {
      try Terminal.print(
        "\(output): \(recording.info.program), \(recording.threads.count) threads, "
          + "\(recording.calls.count) calls, \(recording.faults.count) faults "
          + "from \(report.lines) lines\n")
    }
  }
}

extension RecordingInfo.LayoutOrigin {
  var name: String { self == .recorded ? "recorded" : "inferred" }
}
