// SPDX-License-Identifier: Apache-2.0
//
// A mapping: what stands at the start of a recording, and what a layout model holds.

/// Access rights of a mapping, with the kernel's `PROT_` values.
public struct Protection: OptionSet, Hashable, Sendable, CustomStringConvertible {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let read = Protection(rawValue: 1)
  public static let write = Protection(rawValue: 2)
  public static let execute = Protection(rawValue: 4)

  /// The rights among a call's `prot` argument (`PROT_GROWSDOWN` and the like are left out).
  public init(argument: UInt64) { self.init(rawValue: UInt8(argument & 7)) }

  /// As `/proc/PID/maps` shows them, without the sharing letter.
  public var description: String {
    (contains(.read) ? "r" : "-") + (contains(.write) ? "w" : "-")
      + (contains(.execute) ? "x" : "-")
  }
}

/// A run of pages with one set of attributes.
public struct RecordedArea: Equatable, Sendable {
  /// What the pages come from.
  public enum Backing: Equatable, Sendable {
    case anonymous
    /// Index into the recording's files, nil if the name is unknown, and the offset in bytes.
    case file(Int?, offset: UInt64)
    /// The main thread's stack: grows down.
    case stack
    /// The break area.
    case heap
    /// Pages of the kernel's own: vdso, vvar.
    case kernel
  }

  /// First byte and the byte after the last; whole pages.
  public var start: UInt64
  public var end: UInt64
  public var protection: Protection
  public var isShared: Bool
  public var backing: Backing

  public init(
    start: UInt64, end: UInt64, protection: Protection, isShared: Bool = false,
    backing: Backing = .anonymous
  ) {
    self.start = start
    self.end = end
    self.protection = protection
    self.isShared = isShared
    self.backing = backing
  }
}

extension RecordedArea {
  /// One past the last byte a program can map: 47 bits less the guard page (Linux `TASK_SIZE`).
  public static let spaceEnd: UInt64 = 0x7fff_ffff_f000

  /// This area's attributes over `range`, which lies inside it; a file's offset moves along.
  func clipped(to range: Range<UInt64>) -> RecordedArea {
    var part = self
    part.start = range.lowerBound
    part.end = range.upperBound
    if case .file(let file, let offset) = backing {
      part.backing = .file(file, offset: offset &+ (range.lowerBound &- start))
    }
    return part
  }

  /// Whether `next` begins where this area ends and continues it, so that both are one mapping.
  func isContinued(by next: RecordedArea) -> Bool {
    guard end == next.start, protection == next.protection, isShared == next.isShared else {
      return false
    }
    switch (backing, next.backing) {
    case (.anonymous, .anonymous): return !isShared
    case (.heap, .heap), (.stack, .stack): return true
    case (.file(let file, let offset), .file(let other, let otherOffset)):
      return file == other && file != nil && offset &+ (end &- start) == otherOffset
    default: return false
    }
  }
}
