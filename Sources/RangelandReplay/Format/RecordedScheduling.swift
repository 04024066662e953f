// SPDX-License-Identifier: Apache-2.0
//
// What the kernel's scheduler did with a thread: what tells processor time from waiting.
//
// Source: perf's context switch records, the kernel's `sched_switch` and `sched_wakeup` tracepoints.
// Cost: 24 bytes.

/// A thread left a processor, came to one, or was made ready to run.
public struct RecordedScheduling: Equatable, Sendable {
  /// Why a thread left its processor.
  public enum Reason: UInt8, Sendable {
    /// It could have gone on: another had its turn. From then on it waits for a processor.
    case preempted = 0
    /// It waits in a way that a signal ends (`S`): for a futex, a descriptor, a timer.
    case interruptible = 1
    /// It waits in a way that a signal does not end (`D`): for `mmap_lock`, a page, a disk.
    case uninterruptible = 2
    /// It waits, or has ended; how is not known.
    case blocked = 3
  }

  /// What happened to the thread.
  public enum Change: Equatable, Sendable {
    /// It left its processor.
    case switchedOut(Reason)
    /// It began to run, on this processor if that is known.
    case switchedIn(processor: Int?)
    /// What it waited for has come, and from then on it waits for a processor; made ready by this thread of
    /// the program, nil if it was another's or the kernel's own doing.
    case woken(by: Int?)
  }

  /// In nanoseconds from the start.
  public var time: UInt64
  private var threadNumber: UInt32
  // A reason; a processor or a thread, each plus 1, or 0.
  private var word: UInt32
  private var code: UInt8

  /// - Precondition: the numbers of threads and of the processor are in `0..<2^32 - 1`.
  public init(thread: Int, time: UInt64, _ change: Change) {
    self.time = time
    threadNumber = UInt32(thread)
    switch change {
    case .switchedOut(let reason): (code, word) = (0, UInt32(reason.rawValue))
    case .switchedIn(let processor): (code, word) = (1, processor.map { UInt32($0 + 1) } ?? 0)
    case .woken(let waker): (code, word) = (2, waker.map { UInt32($0 + 1) } ?? 0)
    }
  }

  /// The thread's number.
  public var thread: Int {
    get { Int(threadNumber) }
    set { threadNumber = UInt32(newValue) }
  }

  public var change: Change {
    let number = word == 0 ? nil : Int(word) - 1
    switch code {
    case 0: return .switchedOut(Reason(rawValue: UInt8(word)) ?? .blocked)
    case 1: return .switchedIn(processor: number)
    default: return .woken(by: number)
    }
  }
}
