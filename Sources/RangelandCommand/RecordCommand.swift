// SPDX-License-Identifier: Apache-2.0
//
// `rangeland record`: a program, or a part of its life, to a recording.

import ArgumentParser
import RangelandReplay

struct RecordCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "record",
    abstract: "Record what a program does to its address space.",
    usage: """
      rangeland record -o FILE [--call-chains fp|dwarf] [--note TEXT] [--] PROGRAM [ARGUMENT ...]
      rangeland record -o FILE -p ID [--seconds N] [--call-chains fp|dwarf]
      """,
    discussion: """
      With perf (as root): every call that changes or queries mappings, every page fault, every wait for the \
      kernel's mmap_lock, and when threads ran. Without it strace records calls only; what is missing is said. \
      Interrupting (Ctrl-C) ends the recording and keeps what there is. Options of record stand before the program.
      """)

  @Option(name: .shortAndLong, help: "The recording to write, such as program.rangeland.")
  var output: String

  @Option(
    name: [.customShort("p"), .long],
    help: ArgumentHelp("Attach to this process instead of starting a program.", valueName: "id"))
  var process: Int32?

  @Option(help: "How long to stay attached, in seconds.")
  var seconds: Double?

  @Option(help: "perf or strace; without it perf, or strace where perf cannot record.")
  var tool: RecordingTool?

  @Option(
    help: ArgumentHelp(
      """
      Record through which functions threads come to wait for mmap_lock. fp is cheap, and ends at the first function \
      without frame pointers; dwarf works for nearly all programs, and keeps 8 KiB of the stack each time.
      """, valueName: "fp|dwarf"))
  var callChains: CallChainMethod?

  @Option(help: "For those who look at the recording later.")
  var note = ""

  @Flag(help: "Print what was recorded as JSON.")
  var json = false

  @Argument(parsing: .captureForPassthrough, help: "The program and its arguments.")
  var program: [String] = []

  func validate() throws {
    if process != nil && !command.isEmpty {
      throw ValidationError("name a program or a process (-p), not both")
    }
    if process == nil && command.isEmpty {
      throw ValidationError("name a program to record, or a process (-p)")
    }
    if process == nil && seconds != nil {
      throw ValidationError("--seconds goes with -p; a program is recorded until it ends")
    }
    if callChains != nil && tool == .strace {
      throw ValidationError("--call-chains needs perf: strace sees no waits")
    }
    if let seconds, !(seconds > 0) { throw ValidationError("--seconds is a number above 0") }
  }

  private var command: [String] { program.first == "--" ? Array(program.dropFirst()) : program }

  func run() throws {
    try Recording.checkTarget(output)
    let target: RecordOptions.Target =
      process.map { .process($0, seconds: seconds ?? 10) } ?? .program(command)
    var progress = Progress()
    var isTold = false
    let (recording, report) = try Recording.record(
      RecordOptions(target, tool: tool, callChains: callChains, note: note),
      isInterrupted: {
        if Interruption.isRequested && !isTold {
          isTold = true
          Terminal.warn("interrupted: what was recorded is read now; once more gives it up")
        }
        return Interruption.isRequested
      }, notice: { Terminal.warn($0) },
      poll: { read in
        if read > 0 {
          progress.report("\(read >> 20) MiB of \(tool?.rawValue ?? "the") text read")
        }
      })
    progress.clear()
    try recording.write(to: output)
    say(report, recording)
    try Terminal.print(json ? document(recording, report) : summary(recording))
  }

  private func say(_ report: RecordReport, _ recording: Recording) {
    if let folder = report.fullFolder {
      Terminal.warn(
        "the recording and the program were ended, since \(folder) is nearly full; what was recorded until then is kept; set TMPDIR to a folder with more room"
      )
    }
    if report.wasInterrupted { Terminal.warn("what was recorded until the interrupt is kept") }
    switch report.ending {
    case .exited(0), nil: break
    case .exited(let status): Terminal.warn("the program ended with status \(status)")
    case .killed(let signal): Terminal.warn("the program was ended by signal \(signal)")
    }
    if report.text.lostEvents > 0 {
      Terminal.warn(
        "perf lost \(report.text.lostEvents) events: the recording has holes; the machine is too busy"
      )
    }
    if report.text.otherProcesses > 0 && process == nil {
      Terminal.warn(
        "took process \(report.text.process), which did most, and left out "
          + "\(report.text.otherProcesses) others")
    }
  }

  private func summary(_ recording: Recording) -> String {
    "\(output): \(recording.info.program), \(recording.threads.count) threads, "
      + "\(recording.calls.count) calls, \(recording.faults.count) faults, "
      + "\(recording.acquisitions.count) acquisitions of mmap_lock"
      + (recording.chains.isEmpty ? "\n" : ", \(recording.chains.count) call chains\n")
  }

  private func document(_ recording: Recording, _ report: RecordReport) -> String {
    let status: JSON
    let signal: JSON
    switch report.ending {
    case .exited(let code): (status, signal) = (.integer(Int64(code)), .null)
    case .killed(let number): (status, signal) = (.null, .integer(Int64(number)))
    case nil: (status, signal) = (.null, .null)
    }
    return JSON.document([
      "recording": .string(output), "tool": .string(report.tool.rawValue),
      "program": .string(recording.info.program), "process": .integer(Int64(report.text.process)),
      "exitStatus": status, "signal": signal, "interrupted": .bool(report.wasInterrupted),
      "endedByFullFolder": .bool(report.fullFolder != nil),
      "missing": .array(report.missing.map { .string($0) }),
      "otherProcesses": .count(report.text.otherProcesses),
      "lostEvents": .unsigned(report.text.lostEvents),
      "threads": .count(recording.threads.count), "calls": .count(recording.calls.count),
      "faults": .count(recording.faults.count),
      "acquisitions": .count(recording.acquisitions.count),
      "callChains": .count(recording.chains.count),
      "scheduling": .count(recording.scheduling.count),
      "initialLayout": .string(recording.info.layoutOrigin.name),
    ])
  }
}

extension RecordingTool: ExpressibleByArgument {}
extension CallChainMethod: ExpressibleByArgument {}
