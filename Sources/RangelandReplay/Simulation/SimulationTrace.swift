// SPDX-License-Identifier: Apache-2.0
//
// A simulation as a trace that Perfetto and chrome://tracing open: one track a thread, with what it did and for whom it
// waited.
//
// Source: the Trace Event Format (JSON array of complete events, `"ph": "X"`; times in microseconds).

import Rangeland

/// Writes the states of simulated threads to a file.
final class SimulationTrace {
  /// What a thread is about for some time.
  enum Span: Equatable {
    /// It does not exist yet or any more.
    case absent
    case running
    case pausing
    /// Ready, for want of a processor.
    case ready
    /// Waits for steps of other threads that come before its own.
    case ordered
    case holding(operation: UInt8)
    case waiting(operation: UInt8, ahead: Int?, aheadOperation: UInt8, isFalse: Bool)
  }

  private let target: OutputTarget
  private var bytes: [UInt8] = []
  private var isFirst = true
  private(set) var failure: RecordingError?
  private let operationNames: [String]

  /// The file, behind a class: the trace is handed around.
  private final class OutputTarget {
    var file: OutputFile
    init(_ file: consuming OutputFile) { self.file = file }
  }

  /// Begins the file.
  ///
  /// - Parameters:
  ///   - title: the name of the process in the trace.
  ///   - threadNames: by number.
  init(path: String, title: String, threadNames: [String]) throws(RecordingError) {
    target = OutputTarget(try OutputFile(path: path))
    operationNames = (0..<UInt8(33)).map { OperationKind(rawValue: $0)?.name ?? "nobody" }
    put("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")
    putName("process_name", thread: nil, title)
    for (thread, name) in threadNames.enumerated() {
      putName("thread_name", thread: thread, "\(name) #\(thread)")
    }
  }

  private func putName(_ kind: String, thread: Int?, _ name: String) {
    separate()
    put("{\"ph\":\"M\",\"pid\":1,\"tid\":\(thread ?? 0),\"name\":\"\(kind)\",\"args\":{\"name\":\"")
    for scalar in name.unicodeScalars {
      switch scalar {
      case "\"", "\\": put("\\\(Character(scalar))")
      case _ where scalar.value < 0x20: put(" ")
      default: put(String(scalar))
      }
    }
    put("\"}}")
  }

  private func separate() {
    if isFirst { isFirst = false } else { put(",\n") }
    if bytes.count >= 1 << 20 { flush() }
  }

  private func put(_ text: String) { bytes.append(contentsOf: text.utf8) }

  private func flush() {
    if failure == nil {
      do {
        try target.file.write(bytes)
      } catch {
        failure = error
      }
    }
    bytes.removeAll(keepingCapacity: true)
  }

  /// Adds a state that is over.
  func add(_ span: Span, thread: Int, from start: UInt64, to end: UInt64) {
    let name: String
    var details = ""
    switch span {
    case .absent: return
    case .running: name = "running"
    case .pausing: name = "blocked"
    case .ready: name = "waiting for a processor"
    case .ordered: name = "waiting for a step of another thread"
    case .holding(let operation): name = operationNames[Int(operation)]
    case .waiting(let operation, let ahead, let aheadOperation, let isFalse):
      name = "waiting for the lock"
      details = ",\"args\":{\"operation\":\"\(operationNames[Int(operation)])\""
      if let ahead {
        details +=
          ",\"for thread\":\(ahead),\"which does\":\"\(operationNames[Int(aheadOperation)])\""
      }
      details += ",\"false wait\":\(isFalse)}"
    }
    separate()
    put("{\"ph\":\"X\",\"pid\":1,\"tid\":\(thread),\"ts\":")
    put(Self.microseconds(start))
    put(",\"dur\":")
    put(Self.microseconds(end - start))
    put(",\"name\":\"\(name)\"\(details)}")
  }

  /// Nanoseconds as microseconds with three digits.
  private static func microseconds(_ nanoseconds: UInt64) -> String {
    let fraction = String(nanoseconds % 1000)
    return "\(nanoseconds / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
  }

  /// Ends the file and puts it in its place.
  func finish() throws(RecordingError) {
    put("]}\n")
    flush()
    if let failure { throw failure }
    try target.file.commit()
  }
}
