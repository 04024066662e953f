// SPDX-License-Identifier: Apache-2.0
//
// What a space may use at most.

/// Limits of a space (Linux `RLIMIT_AS`, `RLIMIT_DATA`, `RLIMIT_MEMLOCK`, `RLIMIT_STACK`, `vm.max_map_count`,
/// `vm.overcommit_memory`, and the capability to lock memory). `nil` = none.
public struct Limits: Sendable, Hashable {
  /// Bytes of all mappings, those without rights included.
  public var addressSpace: UInt64?
  /// Bytes of private writable mappings that are no stacks, and of the heap.
  public var data: UInt64?
  /// Bytes of locked mappings. 0: nothing may be locked, not even once more, `EPERM`.
  public var lockedMemory: UInt64?
  /// Whether `lockedMemory` refuses nothing (Linux `CAP_IPC_LOCK`).
  public var canLockBeyondLimit = false
  /// Bytes of one stack that grows.
  public var stack: UInt64?
  /// Mappings. As in Linux one more is reached, because `map` is refused only beyond the limit; changes
  /// that would split a mapping are refused at the limit.
  public var mappingCount: Int?
  /// How much memory may be promised.
  public var overcommit = Overcommit.always
  /// Bytes of pages that are present in the space, of all kinds (Linux `memory.max` of a control group; its `RLIMIT_RSS` does
  /// nothing). At the limit pages of files make room, which stay in the page cache, but for those of locked
  /// mappings; where there are none an access is `AccessFault.Reason.outOfMemory`, and a call that brings pages in throws.
  ///
  /// Faults of a space with this limit are counted, which costs them some nanoseconds; so it can be given, with any value, when
  /// the space is made, and only then be changed. A fork has it too, with a count of its own.
  public var residentMemory: UInt64?

  /// No limits.
  public init() {}

  /// The limits that are named, and no others.
  public init(
    addressSpace: UInt64? = nil, data: UInt64? = nil, lockedMemory: UInt64? = nil,
    stack: UInt64? = nil, mappingCount: Int? = nil, overcommit: Overcommit = .always,
    canLockBeyondLimit: Bool = false, residentMemory: UInt64? = nil
  ) {
    self.residentMemory = residentMemory
    self.canLockBeyondLimit = canLockBeyondLimit
    (self.addressSpace, self.data, self.lockedMemory) = (addressSpace, data, lockedMemory)
    (self.stack, self.mappingCount, self.overcommit) = (stack, mappingCount, overcommit)
  }
}

/// Whether memory may be promised that is not there (Linux `vm.overcommit_memory`). Promised are the pages of
/// private writable mappings without `.noReserve`.
public enum Overcommit: Sendable, Hashable {
  /// Always (mode 1).
  case always
  /// Only what is obviously too much is refused (mode 0): one mapping larger than `memory`, in bytes: memory and
  /// swap together.
  case heuristic(memory: UInt64)
  /// Never (mode 2): all that is promised stays below `limit`, in bytes. `.noReserve` means nothing then. Linux
  /// computes its limit from memory, swap and reserves for administrators and the process itself.
  case strict(limit: UInt64)
}
