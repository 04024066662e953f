// SPDX-License-Identifier: Apache-2.0
//
// Results to standard output, all else to standard error.

import CRangeland
import Glibc
import SystemPackage

enum Terminal {
  /// Writes a command's whole result; throws when it cannot be written (a full disk).
  static func print(_ text: String) throws {
    do {
      try FileDescriptor.standardOutput.writeAll(text.utf8)
    } catch {
      throw OutputFailure(reason: "standard output cannot be written: \(error)")
    }
  }

  static func warn(_ text: String) {
    _ = try? FileDescriptor.standardError.writeAll("rangeland: \(text)\n".utf8)
  }
}

struct OutputFailure: Error, CustomStringConvertible {
  var reason: String
  var description: String { reason }
}

/// A line on standard error that tells how far long work is: only on a terminal, only after a
/// second, five times a second.
struct Progress {
  private let isShown = isatty(2) == 1
  private let start = rl_monotonic_ns()
  private var next: UInt64 = 1_000_000_000
  private var wasWritten = false

  mutating func report(_ text: @autoclosure () -> String) {
    guard isShown else { return }
    let elapsed = rl_monotonic_ns() - start
    guard elapsed >= next else { return }
    next = elapsed + 200_000_000
    wasWritten = true
    _ = try? FileDescriptor.standardError.writeAll("\r\u{1b}[K\(text())".utf8)
  }

  /// Takes the line away.
  mutating func clear() {
    guard wasWritten else { return }
    wasWritten = false
    _ = try? FileDescriptor.standardError.writeAll("\r\u{1b}[K".utf8)
  }
}
