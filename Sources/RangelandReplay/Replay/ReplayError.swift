// SPDX-License-Identifier: Apache-2.0
//
// Why a replay could not be done.

import SystemPackage

/// A replay that did not come to its end.
public enum ReplayError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The user interrupted.
  case interrupted
  /// The recorded program had more threads at once than a replay can have.
  case tooManyThreads(Int)
  /// The system refused a thread (errno) after this many.
  case noThread(Int32, Int)
  /// The system refused memory for the address space or its pages.
  case noMemory
  /// The mappings at the start could not be made: the mapping and what the space answered.
  case setupFailed(String)
  /// No thread did a step for this many seconds: a bug of the planner or of the space.
  case stalled(Int)

  public var description: String {
    switch self {
    case .interrupted: "interrupted"
    case .tooManyThreads(let limit):
      "the recording has more than \(limit) threads alive at once; record a shorter run"
    case .noThread(let errno, let count):
      "the system refused thread \(count + 1): \(Errno(rawValue: errno)); raise the limit (ulimit -u) or record "
        + "a shorter run"
    case .noMemory:
      "the system refused memory for the address space; free memory or raise the limit (ulimit -v)"
    case .setupFailed(let what):
      "\(what); the recording's first mappings cannot be made: make the recording again"
    case .stalled(let seconds):
      "the replay stands still for \(seconds) s; this is a bug of Rangeland: please report it with the recording"
    }
  }
}
