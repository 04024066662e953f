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
    /// When the last acquisition of the present step was over; 0: it has had none.
    private var ends: [UInt64]

    init(_ recording: Recording) {
      self.recording = recording
      faultReach = LockUse.faultReach(recording)
      positions = Array(repeating: 0, count: recording.threads.count)
      ends = Array(repeating: 0, count: recording.threads.count)
    }

    /// What `acquisition` was for.
    mutating func use(of acquisition: RecordedAcquisition) -> LockUse {
      let steps = recording.threads[acquisition.thread].steps
      let thread = acquisition.thread
      var position = positions[thread]
      while position < steps.count, recording.beginning(of: steps[position]) <= acquisition.time {
        position += 1
        ends[thread] = 0
      }
      positions[thread] = position
      guard position > 0 else { return LockUse(operation: nil, range: nil) }
      defer { ends[thread] = acquisition.released ?? acquisition.granted }
      let around = call(around: acquisition, before: position)
      switch steps[position - 1].target {
      // Of a fault inside a call the first is its own, the others are the call's.
      case .fault(let index) where around == nil || ends[thread] == 0:
        let fault = recording.faults[index]
        guard acquisition.time <= max(fault.time, ends[thread]) + faultReach else { break }
        let page = fault.address & ~4095
        return LockUse(operation: .fault, range: page..<(page + 4096))
      case .fault, .call: break
      }
      return around.map(use) ?? LockUse(operation: nil, range: nil)
    }

    /// The call that the thread is in, which faults of its own may have come behind: a few.
    private func call(around acquisition: RecordedAcquisition, before position: Int)
      -> RecordedCall?
    {
      for step in recording.threads[acquisition.thread].steps[..<position].suffix(64).reversed() {
        guard case .call(let index) = step.target else { continue }
        let call = recording.calls[index]
        return acquisition.time <= call.exit ? call : nil
      }
      return nil
    }

    private func use(_ call: RecordedCall) -> LockUse {
      guard let (start, move) = call.move else {
        return LockUse(operation: call.operation, range: call.lockedRange)
      }
      return LockUse(
        operation: call.operation, range: move.sourceRange(from: start), target: move.targetRange)
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

extension OperationKind? {
  /// The operation's name, or what stands for a call that is not recorded.
  public var recordedName: String { self?.name ?? "not recorded" }
}
