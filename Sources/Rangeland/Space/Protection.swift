// SPDX-License-Identifier: Apache-2.0
//
// What a caller asks of a mapping.

/// Rights of a mapping (Linux `PROT_*`).
public struct Protection: OptionSet, Sendable, Hashable {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Pages may be read (`PROT_READ`).
  @inlinable public static var read: Protection { Protection(rawValue: 1) }
  /// Pages may be written (`PROT_WRITE`). As on x86-64, a page that may be written may be read.
  @inlinable public static var write: Protection { Protection(rawValue: 2) }
  /// Pages may be executed (`PROT_EXEC`). As on x86-64 without protection keys, they may be read.
  @inlinable public static var execute: Protection { Protection(rawValue: 4) }
  /// Every right.
  @inlinable public static var all: Protection { Protection(rawValue: 7) }
}

/// Who sees the writes to a mapping (Linux `MAP_PRIVATE`, `MAP_SHARED`).
public enum Sharing: Sendable, Hashable {
  /// Writes are seen by this space only: copy-on-write.
  case `private`
  /// Writes are seen by everybody who maps the object.
  case shared
}

/// Where a mapping goes.
public enum MapAddress: Sendable, Hashable {
  /// The space chooses, by its placement.
  case anywhere
  /// Here if it is free (rounded down to a page), else the space chooses: an address without `MAP_FIXED`.
  case hint(Address)
  /// Here, replacing what is there (`MAP_FIXED`).
  case fixed(Address)
  /// Here, and nowhere else: `EEXIST` when any page is taken (`MAP_FIXED_NOREPLACE`).
  case fixedNoReplace(Address)
}

/// How a space chooses addresses for mappings without one.
public enum Placement: String, Sendable, CaseIterable, Codable {
  /// Top-down first fit, the address that Linux would give.
  case linux
  /// Each thread fills a stretch of its own, so that threads do not meet in the VMA tree. Mappings of whole huge
  /// pages are aligned to the largest power of two that divides their length, 128 MiB at most.
  case arenas
}

/// What a thread wants to do with a page.
public enum AccessKind: UInt8, Sendable, Hashable {
  /// A load.
  case read
  /// A store, or a load and a store in one.
  case write
  /// A fetch of an instruction.
  case execute
}

/// An access that the space refuses: what Linux would deliver as SIGSEGV or SIGBUS.
public struct AccessFault: Error, Hashable, Sendable, CustomStringConvertible {
  /// Linux `si_code` for SIGSEGV and SIGBUS.
  public enum Reason: Sendable, Hashable {
    /// SIGSEGV `SEGV_MAPERR`: no mapping there.
    case notMapped
    /// SIGSEGV `SEGV_ACCERR`: the mapping does not allow it.
    case notPermitted
    /// SIGSEGV `SI_KERNEL`: the address is not canonical; Linux reports address 0.
    case notCanonical
    /// SIGBUS `BUS_ADRERR`: the mapping has no page there (behind the end of a file, where a special mapping says so), or one
    /// that cannot be read: the file or the pager had an error, which `FileObject.read` tells.
    case noPage
    /// The space is out of frames or page tables: Linux would call its out-of-memory killer.
    case outOfMemory
  }

  /// Why.
  public var reason: Reason
  /// The address, as `si_addr` reports it.
  public var address: Address
  /// What was attempted.
  public var access: AccessKind

  /// A refusal as the space would report it, for those who refuse accesses of their own.
  public init(reason: Reason, address: Address, access: AccessKind) {
    (self.reason, self.address, self.access) = (reason, address, access)
  }

  /// What was attempted, where, and why not: `write at 0x1000: not permitted (SEGV_ACCERR)`.
  public var description: String {
    let what =
      switch reason {
      case .notMapped: "no mapping (SEGV_MAPERR)"
      case .notPermitted: "not permitted (SEGV_ACCERR)"
      case .notCanonical: "told for an address that is not canonical (SI_KERNEL)"
      case .noPage: "no page there, or it cannot be read (BUS_ADRERR)"
      case .outOfMemory: "no physical memory left"
      }
    return "\(access) at 0x\(String(address, radix: 16)): \(what)"
  }
}
