// SPDX-License-Identifier: Apache-2.0
//
// Records a program: starts it or attaches to it, with perf or strace, and imports what they tell.
//
// Guarantee: interrupting keeps what was recorded; temporary files go away. If this process is killed, perf or strace
// ends, and with it the program that it started; the temporary folder goes with the next recording.
// Mechanism: perf writes its own file into a temporary folder while the program runs, so that nothing of ours disturbs
// it, and `perf script` is piped into the importer afterwards; strace writes to a named pipe that is read at once.

import CRangeland
import Glibc
import SystemPackage

/// What to record, and how.
public struct RecordOptions: Sendable {
  public enum Target: Sendable {
    /// Start this program with these arguments; the first is looked for in `PATH`.
    case program([String])
    /// Attach to this process for so many seconds, or until it ends.
    case process(Int32, seconds: Double)
  }

  public var target: Target
  /// Which tool; nil: perf, or strace where perf cannot record.
  public var tool: RecordingTool?
  /// Whether to record through which functions threads come to ask for `mmap_lock`, and how; with perf only.
  public var callChains: CallChainMethod?
  /// For those who look at the recording later.
  public var note: String

  public init(
    _ target: Target, tool: RecordingTool? = nil, callChains: CallChainMethod? = nil,
    note: String = ""
  ) {
    self.target = target
    self.tool = tool
    self.callChains = callChains
    self.note = note
  }
}

/// How a recording came about.
public struct RecordReport: Sendable {
  public var tool: RecordingTool
  /// What could not be recorded, and why, in words.
  public var missing: [String] = []
  /// How the program ended; nil if it still runs or was interrupted.
  public var ending: ProgramEnding?
  public var wasInterrupted = false
  /// The temporary folder, if it became nearly full, which ended the recording; what was recorded before is kept.
  public var fullFolder: String?
  public var text: ImportReport
}

struct Recorder {
  let options: RecordOptions
  let tool: RecordingTool
  let tracing: Tracing
  var missing: [String] = []
  private(set) var wasInterrupted = false
  /// The folder that had no room for more, if that ended the recording.
  var fullFolder: String?

  /// Chooses the tool; throws what is missing and what to do about it.
  init(_ options: RecordOptions, tracing: Tracing = Tracing()) throws(RecordingError) {
    self.options = options
    self.tracing = tracing
    switch options.tool {
    case .perf: if let problem = tracing.perfProblem { throw Self.failure("perf", problem) }
    case .strace: if let problem = tracing.straceProblem { throw Self.failure("strace", problem) }
    case nil:
      if let problem = tracing.perfProblem, tracing.straceProblem != nil {
        throw Self.failure("perf", problem)
      }
    }
    tool = options.tool ?? (tracing.perfProblem == nil ? .perf : .strace)
    if tool == .perf {
      missing = tracing.missing
    } else {
      if options.tool == nil, let problem = tracing.perfProblem {
        missing.append("recording with strace, since \(problem.reason); \(problem.advice)")
      }
      missing.append(Tracing.straceLacks)
    }
    if options.callChains != nil {
      let noChains = "call chains of waits for mmap_lock are not recorded: "
      if tool == .strace {
        missing.append(noChains + "strace sees no waits")
      } else if !tracing.events.contains(Tracing.chainEvent) {
        missing.append(noChains + "this kernel does not tell of waits")
      }
    }
    try checkTarget()
  }

  private static func failure(
    _ tool: String, _ problem: (reason: String, advice: String)
  ) -> RecordingError {
    RecordingError(
      .cannotRecord, file: tool, at: .file, problem.reason, advice: problem.advice)
  }

  private func checkTarget() throws(RecordingError) {
    switch options.target {
    case .program(let arguments):
      guard let name = arguments.first, !name.isEmpty else {
        throw RecordingError(
          .cannotRecord, file: "record", at: .file, "no program is named",
          advice: "name one, with its arguments")
      }
      let path = getenv("PATH").map { String(cString: $0) } ?? ""
      let isThere =
        name.contains("/") ? access(name, X_OK) == 0 : Tracing.find(name, in: path) != nil
      guard isThere else {
        throw RecordingError(
          .cannotRecord, file: name, at: .file, "there is no such program",
          advice: "check the name and that it may be run")
      }
    case .process(let id, _):
      guard id > 0, kill(id, 0) == 0 || errno == EPERM else {
        throw RecordingError(
          .cannotRecord, file: "process \(id)", at: .file, "there is no such process",
          advice: "name the id of a program that runs")
      }
    }
  }

  /// The process to take from the text; nil: the one that did most.
  var process: Int32? {
    if case .process(let id, _) = options.target { id } else { nil }
  }

  private var note: String {
    let made = "recorded by `rangeland record` with \(tool.rawValue)"
    return options.note.isEmpty ? made : "\(options.note)\n\(made)"
  }

  func importOptions(_ maps: ProcessMaps?) -> ImportOptions {
    var result = ImportOptions(
      process: process, note: note, machine: .here(limitsOf: process))
    result.maps = maps
    return result
  }

  /// Records; `isInterrupted` is asked several times a second, `poll` is told the bytes of text read.
  mutating func run(
    isInterrupted: () -> Bool, poll: (UInt64) -> Void
  ) throws(RecordingError) -> (recording: Recording, report: RecordReport) {
    switch tool {
    case .perf: try runPerf(isInterrupted, poll)
    case .strace: try runStrace(isInterrupted, poll)
    }
  }

  func report(_ ending: ProgramEnding?, _ text: ImportReport) -> RecordReport {
    let wasEnded = wasInterrupted || fullFolder != nil || process != nil
    return RecordReport(
      tool: tool, missing: missing, ending: wasEnded ? nil : ending,
      wasInterrupted: wasInterrupted, fullFolder: fullFolder, text: text)
  }

  /// Waits for the end of `child`, which an interrupt, the end of the time or a full folder brings about.
  ///
  /// - Parameter folder: with less room than `reserve` bytes what is there is kept; nil: nothing is written.
  mutating func wait(
    for child: ChildProcess, until deadline: UInt64, folder: String? = nil, reserve: UInt64 = 0,
    _ isInterrupted: () -> Bool
  ) -> ProgramEnding {
    var isTold = false
    while true {
      // Where there is little room it may be gone soon.
      let isTight = folder != nil && reserve < 64 << 20
      if let ending = child.wait(milliseconds: isTight ? 10 : 50) { return ending }
      if isInterrupted() { wasInterrupted = true }
      if !isTold, let folder, ScratchFolder.room(in: folder) ?? .max < reserve {
        fullFolder = ScratchFolder.base
      }
      if !isTold, wasInterrupted || fullFolder != nil || rl_monotonic_ns() >= deadline {
        isTold = true
        child.interrupt()
      }
    }
  }

  func deadline() -> UInt64 {
    guard case .process(_, let seconds) = options.target else { return .max }
    return rl_monotonic_ns() + UInt64(max(0, min(seconds, 1e6)) * 1e9)
  }

  // MARK: strace

  private mutating func runStrace(
    _ isInterrupted: () -> Bool, _ poll: (UInt64) -> Void
  ) throws(RecordingError) -> (recording: Recording, report: RecordReport) {
    let scratch = try ScratchFolder()
    let path = scratch.path + "/strace"
    guard mkfifo(path, 0o600) == 0,
      case let reading = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC),
      reading >= 0
    else {
      throw RecordingError(
        .cannotRecord, file: path, at: .file,
        "a named pipe cannot be made: \(Errno(rawValue: errno))",
        advice: "set TMPDIR to a folder that can be written")
    }
    defer { close(reading) }
    var arguments = [
      // -I 2: with -o it would not let itself be interrupted.
      "strace", "-I", "2", "-q", "-f", "-ttt", "-T", "-y", "-e", Tracing.straceCalls, "-o", path,
    ]
    var maps: ProcessMaps?
    switch options.target {
    case .program(let program): arguments += ["--"] + program
    case .process(let id, _): arguments += ["-p", String(id)]
    }
    let child = try ChildProcess(KernelHelper.guarding(arguments))
    if let process { maps = try mapsOnceTraced(process, child, isInterrupted) }
    let deadline = deadline()
    var isTold = false
    var wasStopped = false
    let input = InputBytes(descriptor: FileDescriptor(rawValue: reading), name: "strace")
    let text = try TextLines.parse(input) { read in
      poll(read)
      if isInterrupted() { wasStopped = true }
      if !isTold, wasStopped || rl_monotonic_ns() >= deadline {
        isTold = true
        child.interrupt()
      }
      // Without a first word there is no end to wait for.
      return read > 0 || child.wait(milliseconds: 0) == nil
    }
    wasInterrupted = wasStopped
    let ending = wait(for: child, until: .max, isInterrupted)
    let (recording, report) = try Recording.make(text, "strace", importOptions(maps))
    return (recording, self.report(ending, report))
  }

  private func mapsOnceTraced(
    _ process: Int32, _ child: ChildProcess, _ isInterrupted: () -> Bool
  ) throws(RecordingError) -> ProcessMaps {
    while child.wait(milliseconds: 10) == nil, !isInterrupted() {
      let status = RecordedMachine.contents("/proc/\(process)/status")
      let tracer = status.split(separator: "\n").first { $0.hasPrefix("TracerPid:") }
      if tracer?.split(separator: "\t").last != "0" {
        return try ProcessMaps(process: process) {
          var now = timespec()
          clock_gettime(CLOCK_REALTIME, &now)
          return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
        }
      }
    }
    throw RecordingError(
      .cannotRecord, file: "strace", at: .file, "strace did not attach to the process",
      advice: "see strace's own message; processes of other users need root")
  }
}

extension Recording {
  /// Throws if a recording could not be written to `path`: before a long run, not after it.
  public static func checkTarget(_ path: String) throws(RecordingError) {
    _ = try OutputFile(path: path)
  }

  /// Records a program, or a part of a running program's life.
  ///
  /// The program has this process's standard input, output and error. When `isInterrupted` turns true, recording
  /// ends (a program that was started is told to end, too) and what was recorded is returned.
  /// - Parameters:
  ///   - isInterrupted: asked ten times a second.
  ///   - notice: told at the start what cannot be recorded.
  ///   - poll: told now and then how many bytes of the tool's text were read.
  /// - Throws: what is missing (a tool, a right, a tracepoint, the program) and what to do.
  public static func record(
    _ options: RecordOptions, isInterrupted: () -> Bool, notice: (String) -> Void = { _ in },
    poll: (UInt64) -> Void = { _ in }
  ) throws(RecordingError) -> (recording: Recording, report: RecordReport) {
    var recorder = try Recorder(options)
    for line in recorder.missing { notice(line) }
    return try recorder.run(isInterrupted: isInterrupted, poll: poll)
  }
}
