// SPDX-License-Identifier: Apache-2.0
//
// What can be wrong with a recording, its text or its file.
//
// Guarantee: every bad input ends in one of these; each names the file, the place in it, what is
// wrong there and what the user can do.

/// An error about a recording or the text it is made from.
public struct RecordingError: Error, Equatable, Sendable, CustomStringConvertible {
  /// What went wrong, for programs that decide on it.
  public enum Kind: String, Sendable {
    /// The file cannot be opened, read or written: the operating system refused.
    case cannotOpen, cannotRead, cannotWrite
    /// The file holds no byte.
    case empty
    /// The file is not a recording, or the text is not `perf script` text.
    case foreign
    /// A later version of Rangeland wrote the file.
    case newerVersion
    /// The file ends before its end marker.
    case truncated
    /// A checksum or a count does not match, or a field has an impossible form.
    case corrupted
    /// A well-formed event that cannot have happened: out of order, without a thread, out of space.
    case impossibleEvent
    /// A line of text that is not what its event looks like.
    case malformedLine
    /// Text without a single event of a program.
    case nothingRecorded
    /// A program cannot be recorded here: a tool, a right or a tracepoint is missing.
    case cannotRecord
    /// The user interrupted the work.
    case interrupted
  }

  /// Where in the file.
  public enum Place: Equatable, Sendable {
    case file
    /// Offset from the start of the file, the first byte being 0.
    case byte(UInt64)
    /// Number of the event, the first being 0.
    case event(UInt64)
    /// Number of the line, the first being 1.
    case line(UInt64)
  }

  public var kind: Kind
  /// The file's path as the user gave it.
  public var file: String
  public var place: Place
  /// What is wrong, without a full stop.
  public var reason: String
  /// What the user can do about it, without a full stop.
  public var advice: String

  public init(_ kind: Kind, file: String, at place: Place, _ reason: String, advice: String) {
    self.kind = kind
    self.file = file
    self.place = place
    self.reason = reason
    self.advice = advice
  }

  public var description: String {
    let position =
      switch place {
      case .file: ""
      case .byte(let offset): ", byte \(offset)"
      case .event(let number): ", event \(number)"
      case .line(let number): ", line \(number)"
      }
    return "\(file)\(position): \(reason); \(advice)"
  }
}

extension RecordingError {
  static let copyAgain = "copy the file again or make the recording again"
  static let writeAgain = "fix the program that wrote it, or make the recording again"
}

/// A fault in encoded bytes or in an event, before the place is known to the caller.
struct Malformed: Error, Equatable {
  var kind: RecordingError.Kind
  var reason: String

  static func corrupted(_ reason: String) -> Malformed {
    Malformed(kind: .corrupted, reason: reason)
  }
  static func impossible(_ reason: String) -> Malformed {
    Malformed(kind: .impossibleEvent, reason: reason)
  }
}
