// SPDX-License-Identifier: Apache-2.0
//
// Where a recording was made: what a replay on another machine has to know.

/// The machine, the kernel and the limits that a recorded program ran under.
public struct RecordedMachine: Equatable, Sendable {
  /// A limit of the program (`getrlimit`).
  public enum Limit: Equatable, Sendable {
    case unknown
    case unlimited
    /// In bytes.
    case bytes(UInt64)
  }

  /// The processor's name; empty if unknown.
  public var processor: String
  /// Processors that the system could use; nil if unknown.
  public var processors: Int?
  /// Bytes of memory; nil if unknown.
  public var memory: UInt64?
  /// The kernel's release, as `uname -r` prints it; empty if unknown.
  public var kernel: String
  /// RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK and RLIMIT_MEMLOCK.
  public var addressSpaceLimit = Limit.unknown
  public var dataLimit = Limit.unknown
  public var stackLimit = Limit.unknown
  public var lockedLimit = Limit.unknown
  /// `vm.overcommit_memory`: 0 heuristic, 1 always, 2 never; nil if unknown.
  public var overcommit: Int?
  /// The chosen word of `/sys/kernel/mm/transparent_hugepage/enabled`; empty if unknown.
  public var hugePages = ""
  /// `vm.max_map_count`; nil if unknown.
  public var mapCountLimit: Int?

  public init(
    processor: String = "", processors: Int? = nil, memory: UInt64? = nil, kernel: String = ""
  ) {
    self.processor = processor
    self.processors = processors
    self.memory = memory
    self.kernel = kernel
  }
}

extension ByteWriter {
  /// A number that may be unknown: 0, or the number plus 1.
  private mutating func optional(_ value: UInt64?) { varint(value.map { $0 &+ 1 } ?? 0) }

  private mutating func limit(_ limit: RecordedMachine.Limit) {
    switch limit {
    case .unknown: varint(0)
    case .unlimited: varint(1)
    // What would not fit is as good as unlimited.
    case .bytes(let bytes): varint(bytes > .max - 2 ? 1 : bytes + 2)
    }
  }

  mutating func machine(_ machine: RecordedMachine?) {
    guard let machine else { return byte(0) }
    byte(1)
    text(machine.processor)
    optional(machine.processors.map(UInt64.init))
    optional(machine.memory)
    text(machine.kernel)
    limit(machine.addressSpaceLimit)
    limit(machine.dataLimit)
    limit(machine.stackLimit)
    limit(machine.lockedLimit)
    optional(machine.overcommit.map(UInt64.init))
    text(machine.hugePages)
    optional(machine.mapCountLimit.map(UInt64.init))
  }
}

extension ByteCursor {
  private mutating func optional(_ what: String) throws(Malformed) -> Int? {
    let value = try varint(atMost: Int(Int32.max), what)
    return value == 0 ? nil : value - 1
  }

  private mutating func limit() throws(Malformed) -> RecordedMachine.Limit {
    switch try varint() {
    case 0: .unknown
    case 1: .unlimited
    case let value: .bytes(value - 2)
    }
  }

  mutating func machine() throws(Malformed) -> RecordedMachine? {
    switch try byte() {
    case 0: return nil
    case 1: break
    case let other: throw .corrupted("a machine of the unknown form \(other)")
    }
    var machine = RecordedMachine(processor: try text("the processor's name"))
    machine.processors = try optional("the number of processors")
    let memory = try varint()
    machine.memory = memory == 0 ? nil : memory - 1
    machine.kernel = try text("the kernel's release")
    machine.addressSpaceLimit = try limit()
    machine.dataLimit = try limit()
    machine.stackLimit = try limit()
    machine.lockedLimit = try limit()
    machine.overcommit = try optional("the overcommit mode")
    machine.hugePages = try text("the huge-page setting")
    machine.mapCountLimit = try optional("max_map_count")
    return machine
  }
}
