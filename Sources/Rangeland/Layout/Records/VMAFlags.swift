// SPDX-License-Identifier: Apache-2.0
//
// The attributes of a VMA that decide about access, accounting and merging (Linux `vm_flags`).
//
// The low eight bits have Linux's values, so that `flags >> 4` shifts the MAY bits onto the rights, as
// `mprotect` does. Two VMAs merge only when all their flags are equal.

/// Attributes of a VMA. V2 of the lock map: immutable in a record, changed by publishing a new one.
///
/// The high sixteen bits are no flags but a number, `policy`: what decides about merging is compared, copied to
/// the pieces of a split and carried along by moves in one word.
struct VMAFlags: OptionSet, Sendable, Hashable {
  let rawValue: UInt64

  /// `VM_READ`, `VM_WRITE`, `VM_EXEC`: the rights, as `Protection` numbers them.
  static let read = VMAFlags(rawValue: 1)
  static let write = VMAFlags(rawValue: 2)
  static let execute = VMAFlags(rawValue: 4)
  /// `VM_SHARED`: writes are seen by all who map the object.
  static let shared = VMAFlags(rawValue: 8)
  /// `VM_MAYREAD`, `VM_MAYWRITE`, `VM_MAYEXEC`: the rights that a protection change may give. Fixed
  /// when the mapping is made.
  static let mayRead = VMAFlags(rawValue: 0x10)
  static let mayWrite = VMAFlags(rawValue: 0x20)
  static let mayExecute = VMAFlags(rawValue: 0x40)
  /// `VM_MAYSHARE`: was mapped shared, even if it is treated as private now.
  static let mayShare = VMAFlags(rawValue: 0x80)
  /// `VM_GROWSDOWN`: a stack. Nothing is placed in the 256 pages below it.
  static let growsDown = VMAFlags(rawValue: 0x100)
  /// `VM_ACCOUNT`: its pages are charged to the commit limit.
  static let account = VMAFlags(rawValue: 0x200)
  /// `VM_NORESERVE`: its pages are not charged.
  static let noReserve = VMAFlags(rawValue: 0x400)
  /// `VM_LOCKED`: counts as locked memory.
  static let locked = VMAFlags(rawValue: 0x800)
  /// `VM_SPECIAL` (any of `VM_IO`, `VM_DONTEXPAND`, `VM_PFNMAP`, `VM_MIXEDMAP`): never merges.
  static let special = VMAFlags(rawValue: 0x1000)
  /// `VM_DONTCOPY`, `VM_DONTDUMP`, `VM_WIPEONFORK`, `VM_HUGEPAGE`, `VM_NOHUGEPAGE`, `VM_MERGEABLE`,
  /// `VM_SEALED`, `VM_RAND_READ`, `VM_SEQ_READ`: kept for the operations that set them, compared when
  /// VMAs merge.
  static let dontFork = VMAFlags(rawValue: 0x2000)
  static let dontDump = VMAFlags(rawValue: 0x4000)
  static let wipeOnFork = VMAFlags(rawValue: 0x8000)
  static let hugePage = VMAFlags(rawValue: 0x1_0000)
  static let noHugePage = VMAFlags(rawValue: 0x2_0000)
  static let mergeable = VMAFlags(rawValue: 0x4_0000)
  static let sealed = VMAFlags(rawValue: 0x8_0000)
  static let randomAccess = VMAFlags(rawValue: 0x10_0000)
  static let sequentialAccess = VMAFlags(rawValue: 0x20_0000)
  /// Not a VMA but a range that somebody has chosen and waits for (design section 4, rule 3).
  static let reservation = VMAFlags(rawValue: 0x8000_0000)
  /// `VM_LOCKONFAULT`: locked as its pages come, not populated.
  static let lockOnFault = VMAFlags(rawValue: 0x1_0000_0000)
  /// A special mapping that may not be cut (Linux `vm_operations_struct.may_split`).
  static let uncut = VMAFlags(rawValue: 0x2_0000_0000)
  /// A special mapping that is no memory (`VM_PFNMAP`, `VM_IO`).
  static let device = VMAFlags(rawValue: 0x4_0000_0000)

  /// `VM_LOCKED` and `VM_LOCKONFAULT` (Linux `VM_LOCKED_MASK`).
  static let anyLock = VMAFlags(rawValue: 0x1_0000_0800)

  /// Locked memory with one of these is not brought in for writing.
  static let sharedOrOnFault = VMAFlags(rawValue: 0x1_0000_0008)

  /// Neither a special mapping nor a reservation merges.
  static let unmergeable = VMAFlags(rawValue: 0x8000_1000)

  /// Where the number of the memory policy stands.
  private static let policyShift = 48

  /// The number of the VMA's memory policy in the space's table; 0 = the default (Linux `vm_policy`, V6).
  var policy: UInt16 {
    get { UInt16(truncatingIfNeeded: rawValue >> Self.policyShift) }
    set {
      self = VMAFlags(
        rawValue: rawValue & (1 << Self.policyShift - 1) | UInt64(newValue) << Self.policyShift)
    }
  }

  // No set literals in code that runs often: where the optimiser does not see through one it allocates.

  /// The three rights (Linux `VM_ACCESS_FLAGS`).
  static let access = VMAFlags(rawValue: 7)
  /// The MAY bits of the three rights.
  static let mayAccess: VMAFlags = [.mayRead, .mayWrite, .mayExecute]

  /// Whether every right has its MAY bit (Linux `do_mprotect_pkey`: otherwise EACCES).
  @inline(__always)
  var accessIsAllowed: Bool { rawValue & ~(rawValue >> 4) & VMAFlags.access.rawValue == 0 }

  /// The flags with this lock, `[]` = none, instead of the one there is; special mappings have none (Linux
  /// `mlock_fixup`).
  @inline(__always)
  func locked(as lock: VMAFlags) -> VMAFlags {
    contains(.special) ? self : subtracting(.anyLock).union(lock)
  }

  /// How memory with these flags is accessed to bring it in ahead (Linux `populate_vma_page_range`): private memory
  /// that may be written gets pages of its own. `nil` = it may not be accessed at all.
  @inline(__always)
  var accessAhead: AccessKind? {
    if contains(.device) || isDisjoint(with: .access) { return nil }
    if rawValue & 0xa == VMAFlags.write.rawValue { return .write }
    // By force where there is no right to read, which has to be one that it could get.
    return isDisjoint(with: VMAFlags(rawValue: 0x11)) ? nil : .read
  }

  /// Linux `is_exec_mapping`.
  @inline(__always)
  var countsAsExecutable: Bool {
    rawValue & 0x106 == VMAFlags.execute.rawValue
  }

  /// Linux `is_stack_mapping`.
  @inline(__always)
  var countsAsStack: Bool { contains(.growsDown) }

  /// Linux `is_data_mapping`.
  @inline(__always)
  var countsAsData: Bool { rawValue & 0x10a == VMAFlags.write.rawValue }
}
