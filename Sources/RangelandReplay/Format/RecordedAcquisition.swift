// SPDX-License-Identifier: Apache-2.0
//
// One acquisition of the kernel's `mmap_lock` by a thread.
//
// Source: the kernel's `mmap_lock` tracepoints (include/trace/events/mmap_lock.h): start_locking,
// acquire_returned and released. A second acquire_returned inside a hold is a downgrade
// (`mmap_write_downgrade`).
// Cost: 40 bytes.

/// A thread asked for the address space's `mmap_lock`, waited, held it and gave it back.
///
/// Times are in nanoseconds. What was waited includes the time for which the thread had no processor: the
/// scheduler's events tell it apart.
public struct RecordedAcquisition: Equatable, Sendable {
  private static let unknown = UInt64.max

  /// When the thread asked for the lock.
  public var time: UInt64
  /// From asking to having the lock, or to giving up.
  public var waited: UInt64
  private var heldWord: UInt64
  private var downgradedWord: UInt64
  /// The thread's number, and above it the two bits below.
  private var threadWord: UInt32
  /// The chain's number plus 1, or 0.
  private var chainWord: UInt32 = 0

  private static let writeBit: UInt32 = 1 << 31
  private static let grantedBit: UInt32 = 1 << 30

  /// An acquisition by `thread`.
  ///
  /// - Precondition: `thread` is in `0..<2^30`.
  public init(
    thread: Int, time: UInt64, waited: UInt64, held: UInt64?, isWrite: Bool, isGranted: Bool = true,
    downgradedAfter: UInt64? = nil, chain: Int? = nil
  ) {
    threadWord = 0
    self.time = time
    self.waited = waited
    heldWord = held ?? Self.unknown
    downgradedWord = downgradedAfter ?? Self.unknown
    self.thread = thread
    self.isWrite = isWrite
    self.isGranted = isGranted
    self.chain = chain
  }

  /// The thread's number, below 2^30.
  public var thread: Int {
    get { Int(threadWord & (Self.grantedBit - 1)) }
    set {
      precondition((0..<Int(Self.grantedBit)).contains(newValue), "2^30 threads at most")
      threadWord = threadWord & (Self.writeBit | Self.grantedBit) | UInt32(newValue)
    }
  }

  /// Asked for as a writer; else as a reader.
  public var isWrite: Bool {
    get { threadWord & Self.writeBit != 0 }
    set { if newValue { threadWord |= Self.writeBit } else { threadWord &= ~Self.writeBit } }
  }

  /// Whether the lock was given. A try that failed, and a wait that a fatal signal ended, are false.
  public var isGranted: Bool {
    get { threadWord & Self.grantedBit != 0 }
    set { if newValue { threadWord |= Self.grantedBit } else { threadWord &= ~Self.grantedBit } }
  }

  /// Where the program asked for it: a number in `Recording.chains`; nil if that is not recorded.
  ///
  /// At most 2^32 - 2.
  public var chain: Int? {
    get { chainWord == 0 ? nil : Int(chainWord) - 1 }
    set { chainWord = newValue.map { UInt32($0 + 1) } ?? 0 }
  }

  /// For how long it was held; nil if it was still held when the recording ended, and if it was not given.
  public var held: UInt64? {
    get { heldWord == Self.unknown ? nil : heldWord }
    set { heldWord = newValue ?? Self.unknown }
  }

  /// For a writer that went on as a reader (`munmap`, `brk`, `mremap` do): for how long it held the lock as a
  /// writer. Nil for all others.
  public var downgradedAfter: UInt64? {
    get { downgradedWord == Self.unknown ? nil : downgradedWord }
    set { downgradedWord = newValue ?? Self.unknown }
  }

  /// When the thread had the lock or gave up.
  public var granted: UInt64 { time + waited }

  /// When it gave the lock back, as `held` tells.
  public var released: UInt64? { held.map { granted + $0 } }
}
