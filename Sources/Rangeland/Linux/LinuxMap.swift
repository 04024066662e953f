// SPDX-License-Identifier: Apache-2.0
//
// `mmap` with raw arguments.
//
// Source: Linux arch/x86/kernel/sys_x86_64.c, mm/mmap.c `ksys_mmap_pgoff`, `do_mmap`.

import SystemPackage

/// Bits of `mmap`'s flags (Linux `MAP_*`).
enum LinuxMapFlags {
  static var shared: UInt64 { 1 }
  static var `private`: UInt64 { 2 }
  static var typeMask: UInt64 { 0xf }
  static var fixed: UInt64 { 0x10 }
  static var anonymous: UInt64 { 0x20 }
  static var fixedNoReplace: UInt64 { 0x10_0000 }
}

extension AddressSpace {
  /// address, length, `PROT_*`, `MAP_*`, descriptor, offset in bytes.
  func linuxMap(_ arguments: LinuxArguments) throws(Errno) -> Address {
    let (start, length, flags) = (arguments.first, arguments.second, arguments.fourth)
    if !arguments.sixth.isPageAligned { throw .invalidArgument }
    // A space has no descriptors.
    if flags & LinuxMapFlags.anonymous == 0 { throw .badFileDescriptor }
    let address: MapAddress =
      if flags & LinuxMapFlags.fixedNoReplace != 0 {
        .fixedNoReplace(start)
      } else if flags & LinuxMapFlags.fixed != 0 {
        .fixed(start)
      } else {
        start == 0 ? .anywhere : .hint(start)
      }
    let sharing: Sharing
    switch flags & LinuxMapFlags.typeMask {
    case LinuxMapFlags.shared: sharing = .shared
    case LinuxMapFlags.private: sharing = .private
    default: throw refusal(of: address, length)
    }
    return try map(
      length: length, at: address,
      // Rights that do not exist are ignored.
      protection: Protection(rawValue: UInt32(truncatingIfNeeded: arguments.third & 7)),
      sharing: sharing)
  }

  /// What a mapping without a type gets: the errors that the kernel finds before it looks at the type.
  private func refusal(of address: MapAddress, _ length: UInt64) -> Errno {
    do throws(Errno) {
      guard length != 0 else { throw .invalidArgument }
      guard let rounded = length.roundedUpToPage, rounded != 0, rounded <= Address.spaceEnd else {
        throw .noMemory
      }
      switch address {
      case .fixed(let start): _ = try Self.fixedRange(start, rounded)
      case .fixedNoReplace(let start):
        let range = try Self.fixedRange(start, rounded)
        if mapping(intersecting: range) != nil { throw .fileExists }
      case .hint, .anywhere:
        let context = reclaimer.context()
        context.pin()
        defer { context.unpin() }
        if !layout.pointee.hasGap(rounded) { throw .noMemory }
      }
      return .invalidArgument
    } catch {
      return error
    }
  }
}
