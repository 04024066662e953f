// SPDX-License-Identifier: Apache-2.0
//
// One thing that a simulated thread does. 32 bytes: a recording of ten million events has as many.

import Rangeland

struct SimulationStep {
  /// What happens once the time before it has passed.
  enum Kind: UInt8 {
    /// An operation on the space: a lock is taken, held, and given back.
    case operation
    /// The thread is not running: it waits for something that is not the lock (`nanoseconds`).
    case pause
    /// The thread runs (`nanoseconds`): times that do not fit into `think`.
    case work
    /// Another thread begins (`thread`).
    case spawn
  }

  /// What an operation does to the mappings.
  enum Effect: UInt8 {
    case none
    /// It maps; `remap` resizes or moves what is there (`SimulationProgram.moves`).
    case map
    case unmap, protect
  }

  // Low 12 bits of `startWord`: operation (5), kind (2), writes, counts, writesPage, effect (2).
  // Low 12 bits of `endWord`: the share of the hold after which a writer goes on as a reader, in 1/4096; 0 = never.
  private var startWord: UInt64
  private var endWord: UInt64
  /// Processor time before it, in nanoseconds.
  var think: UInt32 = 0
  /// For how long the lock is held, in nanoseconds.
  var hold: UInt32 = 0
  /// Where its dependencies begin; `noDependency` = it has none.
  var dependency: UInt32 = Self.noDependency
  /// Attributes of what it maps (`SimulationProgram.attributes`), the rights that it gives, or how it moves
  /// (`SimulationProgram.moves`).
  var attributes: UInt32 = 0

  static let noDependency = UInt32.max
  private static let low: UInt64 = 0xfff

  /// An operation over the pages of `start..<end`.
  init(
    _ operation: OperationKind, _ start: UInt64, _ end: UInt64, writes: Bool, effect: Effect = .none
  ) {
    startWord =
      start & ~Self.low | UInt64(operation.rawValue) | (writes ? 1 << 7 : 0)
      | UInt64(effect.rawValue) << 10
    endWord = (end &+ Self.low) & ~Self.low
  }

  /// Time that passes.
  init(_ kind: Kind, nanoseconds: UInt64) {
    startWord = UInt64(kind.rawValue) << 5
    endWord = nanoseconds
  }

  /// The start of a thread.
  init(spawning thread: Int) {
    startWord = UInt64(Kind.spawn.rawValue) << 5
    endWord = UInt64(thread)
  }

  @inline(__always) var start: UInt64 { startWord & ~Self.low }
  @inline(__always) var end: UInt64 { endWord & ~Self.low }
  /// Of `pause` and `work`.
  @inline(__always) var nanoseconds: UInt64 { endWord }
  /// Of `spawn`.
  @inline(__always) var thread: Int { Int(endWord) }
  /// The raw value of the operation.
  @inline(__always) var operation: UInt8 { UInt8(truncatingIfNeeded: startWord & 31) }
  @inline(__always) var kind: Kind {
    Kind(rawValue: UInt8(truncatingIfNeeded: startWord >> 5 & 3)).unsafelyUnwrapped
  }
  /// Whether the lock is asked for as a writer.
  @inline(__always) var writes: Bool { startWord & 1 << 7 != 0 }
  @inline(__always) var effect: Effect {
    Effect(rawValue: UInt8(truncatingIfNeeded: startWord >> 10 & 3)).unsafelyUnwrapped
  }
  /// Whether it resizes or moves a mapping.
  @inline(__always) var isMove: Bool {
    operation == OperationKind.remap.rawValue && effect == .map
  }
  /// Whether others count it when they wait for steps of this thread.
  var counts: Bool {
    @inline(__always) get { startWord & 1 << 8 != 0 }
    set { startWord = newValue ? startWord | 1 << 8 : startWord & ~(1 << 8) }
  }
  /// Whether a fault writes to its page: the first of a private VMA gives it its anonymous identity.
  var writesPage: Bool {
    @inline(__always) get { startWord & 1 << 9 != 0 }
    set { startWord = newValue ? startWord | 1 << 9 : startWord & ~(1 << 9) }
  }
  /// The share of the hold, in 1/4096, after which a writer goes on as a reader; 0 = never.
  var downgrade: UInt64 {
    @inline(__always) get { endWord & Self.low }
    set { endWord = endWord & ~Self.low | min(newValue, Self.low) }
  }
}
