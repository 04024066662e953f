// SPDX-License-Identifier: Apache-2.0
//
// Text from a file or standard input, line by line, of any total size.
//
// Cost: two buffers of 1 MiB; a line is at most that long.

import Glibc

enum TextLines {
  private static let bufferSize = 1 << 20

  /// Parses all of `input`. `poll` is called between pieces with the bytes read so far and ends the
  /// work by returning false.
  static func parse(
    _ source: consuming InputBytes, poll: (UInt64) -> Bool
  ) throws(RecordingError) -> PerfText {
    var input = source
    var parser = TextParser()
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferSize, alignment: 16)
    defer { buffer.deallocate() }
    var filled = 0
    var isAtEnd = false
    while !isAtEnd {
      guard poll(input.offset) else {
        throw RecordingError(
          .interrupted, file: input.name, at: .byte(input.offset), "interrupted",
          advice: "run it again")
      }
      guard filled < buffer.count else {
        throw RecordingError(
          .foreign, file: input.name, at: .line(parser.lines + 1),
          "a line of more than \(bufferSize) bytes: this is not text of `perf script` or strace",
          advice: "import what `perf script` or strace printed")
      }
      guard
        let count = try input.readSome(
          into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
      else { continue }
      isAtEnd = count == 0
      filled += count
      filled = try lines(buffer, filled, isAtEnd: isAtEnd, &parser, input.name)
    }
    if input.offset == 0 {
      throw RecordingError(
        .empty, file: input.name, at: .file, "the text is empty",
        advice: "import what `perf script` or strace printed")
    }
    return parser.finish()
  }

  /// Parses the whole lines among the first `filled` bytes, moves the rest to the front and returns
  /// its size.
  private static func lines(
    _ buffer: UnsafeMutableRawBufferPointer, _ filled: Int, isAtEnd: Bool,
    _ parser: inout TextParser, _ name: String
  ) throws(RecordingError) -> Int {
    let bytes = UnsafeBufferPointer(
      start: UnsafePointer(buffer.baseAddress!.assumingMemoryBound(to: UInt8.self)), count: filled)
    var start = 0
    while start < filled {
      var end = filled
      if let found = memchr(bytes.baseAddress! + start, 0x0a, filled - start) {
        end = UnsafeRawPointer(found) - UnsafeRawPointer(bytes.baseAddress!)
      } else if !isAtEnd {
        break
      }
      do {
        try parser.line(UnsafeBufferPointer(rebasing: bytes[start..<end]))
      } catch {
        let isCut = end == filled
        throw RecordingError(
          .malformedLine, file: name, at: .line(parser.lines),
          isCut ? "the last line is cut off" : "the line is not what \(parser.tool) prints",
          advice: "expected \(error.expected)")
      }
      start = end + 1
    }
    if start < filled {
      memmove(buffer.baseAddress!, buffer.baseAddress! + start, filled - start)
      return filled - start
    }
    return 0
  }
}
