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
  static var sharedValidate: UInt64 { 3 }
  static var typeMask: UInt64 { 0xf }
  static var fixed: UInt64 { 0x10 }
  static var anonymous: UInt64 { 0x20 }
  static var below2GiB: UInt64 { 0x40 }
  static var growsDown: UInt64 { 0x100 }
  static var locked: UInt64 { 0x2000 }
  static var noReserve: UInt64 { 0x4000 }
  static var populate: UInt64 { 0x8000 }
  /// Takes `populate` back.
  static var nonBlocking: UInt64 { 0x1_0000 }
  static var stack: UInt64 { 0x2_0000 }
  static var huge: UInt64 { 0x4_0000 }
  static var synchronous: UInt64 { 0x8_0000 }
  static var fixedNoReplace: UInt64 { 0x10_0000 }
  /// Those that `sharedValidate` lets through (Linux `LEGACY_MAP_MASK`).
  static var validated: UInt64 { 0x7c07_f9f3 }

  /// What a space has words for. Other bits, those that exist included, change nothing about memory without a file.
  static func options(_ flags: UInt64) -> MapOptions {
    var options: MapOptions = []
    if flags & growsDown != 0 { options.insert(.growsDown) }
    if flags & below2GiB != 0 { options.insert(.below2GiB) }
    if flags & noReserve != 0 { options.insert(.noReserve) }
    if flags & stack != 0 { options.insert(.stack) }
    if flags & locked != 0 { options.insert(.locked) }
    if flags & (populate | nonBlocking) == populate { options.insert(.populate) }
    return options
  }
}

extension AddressSpace {
  /// address, length, `PROT_*`, `MAP_*`, descriptor, offset in bytes.
  func linuxMap(_ arguments: LinuxArguments) throws(Errno) -> Address {
    let (start, length, flags) = (arguments.first, arguments.second, arguments.fourth)
    if !arguments.sixth.isPageAligned { throw .invalidArgument }
    let address: MapAddress =
      if flags & LinuxMapFlags.fixedNoReplace != 0 {
        .fixedNoReplace(start)
      } else if flags & LinuxMapFlags.fixed != 0 {
        .fixed(start)
      } else {
        start == 0 ? .anywhere : .hint(start)
      }
    if flags & LinuxMapFlags.anonymous == 0 { return try linuxMapFile(arguments, address) }
    let options = LinuxMapFlags.options(flags)
    if flags & LinuxMapFlags.huge != 0 { throw refusalOfHugePages(length, flags) }
    let sharing: Sharing
    switch flags & LinuxMapFlags.typeMask {
    case LinuxMapFlags.shared: sharing = .shared
    case LinuxMapFlags.private: sharing = .private
    default: throw refusal(of: address, length, options)
    }
    return try map(
      length: length, at: address,
      // Rights that do not exist are ignored.
      protection: Protection(rawValue: UInt32(truncatingIfNeeded: arguments.third & 7)),
      sharing: sharing, options: options)
  }

  /// `MAP_HUGETLB`: sizes that x86-64 has are refused because a space has no pool of them.
  private func refusalOfHugePages(_ length: UInt64, _ flags: UInt64) -> Errno {
    // log2 of the size in bits 26 to 31; 0 = 2 MiB.
    guard [0, 21, 30].contains(flags >> 26 & 0x3f), length != 0,
      flags & LinuxMapFlags.growsDown == 0
    else { return .invalidArgument }
    return .noMemory
  }
}
