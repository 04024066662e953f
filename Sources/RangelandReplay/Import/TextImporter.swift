// SPDX-License-Identifier: Apache-2.0
//
// Makes a recording from what `perf script` or strace printed.
//
// Guarantee: the recording holds one process, from its last exec (or the text's start) on, and
// every event of it that can be told; what is left out is counted by name, nothing silently.
// Mechanism: parse all lines, sort by time, choose the process, then walk its events once.
// Cost: 48 bytes a line that matters, given back as the recording grows; a pass of the text at tens of megabytes a second.

/// How to import.
public struct ImportOptions: Sendable {
  /// The process to take, or nil for the one with the most calls and faults.
  public var process: Int32?
  /// How the recording was made, for those who look at it later.
  public var note: String
  /// Where the text was made; nil if unknown.
  public var machine: RecordedMachine?
  /// The mappings at the start, listed by the kernel when the recording began.
  var maps: ProcessMaps?

  public init(process: Int32? = nil, note: String = "", machine: RecordedMachine? = nil) {
    self.process = process
    self.note = note
    self.machine = machine
  }
}

/// What an import found besides the recording.
public struct ImportReport: Sendable {
  public var lines: UInt64
  /// Events that perf lost; the recording has holes if there are any.
  public var lostEvents: UInt64
  /// The process that was taken, or the first thread's id where the text has no process ids.
  public var process: Int32
  /// Other processes in the text, whose events were left out.
  public var otherProcesses: Int
}

extension Recording {
  /// Imports the text at `path` (`-`: standard input).
  ///
  /// - Parameter poll: called now and then with the bytes read so far; returning false ends the
  ///   import with an error of kind `interrupted`.
  public static func importText(
    path: String, options: ImportOptions = ImportOptions(), poll: (UInt64) -> Bool = { _ in true }
  ) throws(RecordingError) -> (recording: Recording, report: ImportReport) {
    let input = try InputBytes(path: path, dashIsStandardInput: true)
    let name = input.name
    return try make(TextLines.parse(input, poll: poll), name, options)
  }

  /// Imports text from memory; errors call it `name`.
  public static func importText(
    bytes: [UInt8], name: String, options: ImportOptions = ImportOptions()
  ) throws(RecordingError) -> (recording: Recording, report: ImportReport) {
    let input = InputBytes(bytes: bytes, name: name)
    return try make(TextLines.parse(input, poll: { _ in true }), name, options)
  }

  /// Makes the recording that `text` tells of.
  static func make(
    _ source: consuming PerfText, _ name: String, _ options: ImportOptions
  ) throws(RecordingError) -> (recording: Recording, report: ImportReport) {
    var text = consume source
    if let maps = options.maps, let process = options.process {
      text.begin(with: maps, of: process)
    }
    let processes = TextProcesses(text)
    guard let process = options.process ?? processes.largest, processes.counts[process] != nil
    else {
      let wanted = options.process
      throw RecordingError(
        .nothingRecorded, file: name, at: .file,
        wanted.map { "process \($0) has no call or fault in the text" }
          ?? "the text holds no call and no fault of a program",
        advice: wanted == nil
          ? "record the events that docs/recording-format.md lists"
          : "choose one of \(processes.counts.keys.sorted())")
    }
    let report = ImportReport(
      lines: text.lines, lostEvents: text.lost, process: process,
      otherProcesses: processes.counts.count - 1)
    // From here on nobody else holds the text.
    var builder = ProcessBuilder(consume text, processes, process)
    builder.run()
    return (try (consume builder).recording(name, options), report)
  }
}
