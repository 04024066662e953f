// SPDX-License-Identifier: Apache-2.0
//
// `mprotect` with raw arguments.
//
// Source: Linux mm/mprotect.c `do_mprotect_pkey`, include/linux/mman.h `arch_validate_prot`.

import SystemPackage

extension AddressSpace {
  /// address, length, `PROT_*`.
  func linuxProtect(_ arguments: LinuxArguments) throws(Errno) {
    let (start, length) = (arguments.first, arguments.second)
    let rights = arguments.third & ~Self.growth
    let grows = arguments.third & Self.growth
    if grows == Self.growth { throw .invalidArgument }
    // PROT_SEM, which means nothing on x86-64, is the one further bit that is let through.
    if rights & ~0xf != 0 {
      guard start.isPageAligned else { throw .invalidArgument }
      if length == 0 { return }
      guard let rounded = length.roundedUpToPage, start &+ rounded > start else { throw .noMemory }
      throw .invalidArgument
    }
    if grows == Self.growsUp {
      // No mapping grows up on x86-64: the same checks, and what is there refuses.
      guard start.isPageAligned else { throw .invalidArgument }
      if length == 0 { return }
      guard let rounded = length.roundedUpToPage, start &+ rounded > start else { throw .noMemory }
      throw mapping(at: start) == nil ? .noMemory : .invalidArgument
    }
    try protect(
      at: start, length: length, Protection(rawValue: UInt32(truncatingIfNeeded: rights & 7)),
      fromStackStart: grows != 0)
  }

  /// `PROT_GROWSDOWN` and `PROT_GROWSUP`.
  private static var growth: UInt64 { 0x300_0000 }
  private static var growsUp: UInt64 { 0x200_0000 }
}
