// SPDX-License-Identifier: Apache-2.0
//
// Tells perf's text from strace's by its first line, and parses it.

struct TextParser {
  private enum Dialect { case unknown, perf, strace }

  private var dialect = Dialect.unknown
  private var perf = PerfTextParser()
  private var strace = StraceParser()

  /// Lines taken so far.
  var lines: UInt64 { dialect == .strace ? strace.text.lines : perf.text.lines }

  /// The tool that printed the text, as errors name it.
  var tool: String { dialect == .strace ? "strace" : "perf" }

  /// Takes one line without its line end.
  mutating func line(_ bytes: UnsafeBufferPointer<UInt8>) throws(LineProblem) {
    if dialect == .unknown { dialect = StraceParser.recognises(bytes) ? .strace : .unknown }
    if dialect == .strace {
      try strace.line(bytes)
    } else {
      let before = perf.text.events.count
      try perf.line(bytes)
      if perf.text.events.count > before { dialect = .perf }
    }
  }

  /// Ends the parsing and gives its result, sorted by time.
  consuming func finish() -> PerfText { dialect == .strace ? strace.finish() : perf.finish() }
}
