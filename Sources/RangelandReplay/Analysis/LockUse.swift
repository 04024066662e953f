// SPDX-License-Identifier: Apache-2.0
//
// What a recorded acquisition of mmap_lock was for: the call or the fault of its thread, and its pages.

import Rangeland

/// An operation and the pages that it works on, where they are known.
struct LockUse {
  var operation: OperationKind?
  var range: Range<UInt64>?
  /// Where a mapping goes that is moved; empty = there is no second range.
  var target: Range<UInt64> = 0..<0

  /// Whether the two work on a common page; nil = the pages of one are not known.
  func overlaps(_ other: LockUse) -> Bool? {
    guard let range, let otherRange = other.range else { return nil }
    return range.overlaps(otherRange) || range.overlaps(other.target)
      || target.overlaps(otherRange) || target.overlaps(other.target)
  }

  /// How long after a fault an acquisition is still its own, in nanoseconds, unless something else begins before: the
  /// time of one with a call chain is taken when the chain has been.
  static func faultReach(_ recording: Recording) -> UInt64 {
    recording.chains.isEmpty ? 10_000 : 40_000
  }

  /// Walks the steps of every thread beside its acquisitions, which come in the order of time.
  struct Cursors {
    private let recording: Recording
    private let faultReach: UInt64
    private var positions: [Int]

    init(_ recording: Recording) {
      self.recording = recording
      faultReach = LockUse.faultReach(recording)
      positions = Array(repeating: 0, count: recording.threads.count)
    }

    /// What `acquisition` was for.
    mutating func use(of acquisition: RecordedAcquisition) -> LockUse {
      let steps = recording.threads[acquisition.thread].steps
      var position = positions[acquisition.thread]
      while position < steps.count, recording.beginning(of: steps[position]) <= acquisition.time {
        position += 1
      }
      positions[acquisition.thread] = position
      guard position > 0 else { return LockUse(operation: nil, range: nil) }
      switch steps[position - 1].target {
      case .call(let index):
        let call = recording.calls[index]
        if acquisition.time > call.exit { return LockUse(operation: nil, range: nil) }
        if let (start, move) = call.move {
          return LockUse(
            operation: call.operation, range: move.sourceRange(from: start),
            target: move.targetRange)
        }
        return LockUse(operation: call.operation, range: call.lockedRange)
      case .fault(let index):
        let fault = recording.faults[index]
        if acquisition.time > fault.time + faultReach {
          return LockUse(operation: nil, range: nil)
        }
        let page = fault.address & ~4095
        return LockUse(operation: .fault, range: page..<(page + 4096))
      }
    }
  }
}

extension RecordedCall {
  /// The operation of the product that the call is.
  var operation: OperationKind? {
    switch kind {
    case .mmap: .map
    case .munmap: .unmap
    case .mprotect, .pkeyMprotect: .protect
    case .mremap: .remap
    case .brk: .setBreak
    case .madvise:
      switch arguments[2] {
      case 4, 24: .dontNeed
      case 0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19: .setAdvice
      case 22, 23: .populate
      default: .advise
      }
    case .mlock, .mlock2, .munlock, .mlockall, .munlockall: .lockMemory
    case .msync: .synchronize
    case .mincore: .residency
    case .mseal: .seal
    case .remapFilePages: .remapPages
    case .processMadvise: .advise
    case .fork, .vfork, .clone, .clone3: .fork
    case .userfaultfd, .execve: nil
    }
  }
}
