// SPDX-License-Identifier: Apache-2.0
//
// How a run ends: one place for the statuses and for what is said then.

import ArgumentParser
import Glibc
import RangelandReplay
import Synchronization

/// The program's exit statuses.
enum ExitStatus: Int32 {
  case done = 0
  /// The work failed; a message is on standard error.
  case failed = 1
  /// A comparison found a difference; it was printed first.
  case differs = 2
  /// The command line is wrong (`EX_USAGE`).
  case usage = 64
  /// The user interrupted (128 + SIGINT).
  case interrupted = 130

  /// The status that an error stands for.
  init(_ error: any Error) {
    switch error {
    case is Difference: self = .differs
    case let error as RecordingError where error.kind == .interrupted: self = .interrupted
    case is Interrupted: self = .interrupted
    default: self = .failed
    }
  }

  /// Says what `error` is, and exits. Help and version texts come this way too.
  static func end(after error: any Error, of command: any ParsableCommand.Type) -> Never {
    let parserCode = command.exitCode(for: error)
    // The parser knows its own: help (0) and usage (64). All other errors are ours.
    if parserCode == .success || parserCode == .validationFailure { command.exit(withError: error) }
    let status = ExitStatus(error)
    switch status {
    case .differs: break
    case .interrupted: Terminal.warn("interrupted")
    default: Terminal.warn(String(describing: error))
    }
    Glibc.exit(status.rawValue)
  }
}

/// Thrown after a difference has been printed.
struct Difference: Error {}

/// Thrown where work ends because the user interrupted.
struct Interrupted: Error {}

/// Whether the user has interrupted (SIGINT).
///
/// The first interrupt lets the work end in order; the second ends the process at once.
enum Interruption {
  // Written by the handler, read by `isRequested`: a flag, nothing is published by it.
  private static let flag = Atomic<Bool>(false)

  static func watch() {
    // Made before a handler may need it.
    _ = flag.load(ordering: .relaxed)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in
      Interruption.flag.store(true, ordering: .relaxed)
    }
    // Without SA_RESTART a read that waits for input ends; a second interrupt has its usual effect.
    action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND))
    sigaction(SIGINT, &action, nil)
  }

  static var isRequested: Bool { flag.load(ordering: .relaxed) }
}
