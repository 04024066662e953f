// SPDX-License-Identifier: Apache-2.0
//
// From what callers ask, to VMA flags, to the rights of pages.

extension VMAFlags {
  /// The flags of a new VMA (Linux `calc_vm_prot_bits`, `accountable_mapping`; the `VM_MAY*` bits of memory
  /// without a file).
  init(_ protection: Protection, _ sharing: Sharing) {
    var flags: VMAFlags = [.mayRead, .mayWrite, .mayExecute]
    if sharing == .shared { flags.formUnion([.shared, .mayShare]) }
    self = flags.with(protection)
    if sharing == .private && protection.contains(.write) { insert(.account) }
  }

  /// The flags after the rights were changed (Linux `mprotect_fixup`). Private memory that becomes writable
  /// is charged to the commit limit, and stays so when it loses the right again, unless it is anonymous
  /// memory that was never written to: VMAs that differ in that do not merge.
  func changed(
    to protection: Protection, isAnonymous: Bool, hasIdentity: Bool
  ) -> VMAFlags {
    var flags = with(protection)
    if flags == self { return self }
    if flags.contains(.write) {
      if isDisjoint(with: [.account, .write, .shared, .noReserve]) { flags.insert(.account) }
    } else if isAnonymous && !hasIdentity {
      flags.remove(.account)
    }
    return flags
  }

  /// The same flags with other rights.
  private func with(_ protection: Protection) -> VMAFlags {
    var flags = subtracting(.access)
    if protection.contains(.read) { flags.insert(.read) }
    if protection.contains(.write) { flags.insert(.write) }
    if protection.contains(.execute) { flags.insert(.execute) }
    return flags
  }

  /// The rights as callers know them.
  var protection: Protection {
    var protection: Protection = []
    if contains(.read) { protection.insert(.read) }
    if contains(.write) { protection.insert(.write) }
    if contains(.execute) { protection.insert(.execute) }
    return protection
  }

  /// Whether an access is allowed (Linux `access_error` on x86-64: any right lets a page be read).
  @inline(__always)
  func allows(_ access: AccessKind) -> Bool {
    switch access {
    case .read: !isDisjoint(with: .access)
    case .write: contains(.write)
    case .execute: contains(.execute)
    }
  }

  /// The rights of a page that is the VMA's own.
  @inline(__always)
  var pageRights: PageRights {
    var rights: PageRights = []
    if allows(.read) { rights.insert(.read) }
    if contains(.write) { rights.insert(.write) }
    if contains(.execute) { rights.insert(.execute) }
    return rights
  }

  /// The rights of a page that others may have too: writing comes with a copy.
  @inline(__always)
  var readRights: PageRights { pageRights.subtracting(.write) }
}
