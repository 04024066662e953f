// SPDX-License-Identifier: Apache-2.0
//
// `mprotect` with raw arguments.
//
// Source: Linux mm/mprotect.c `do_mprotect_pkey`, include/linux/mman.h `arch_validate_prot`.

import SystemPackage

extension AddressSpace {
  /// address, length, `PROT_*`.
  func linuxProtect(_ arguments: LinuxArguments) throws(Errno) {
    let (start, length, rights) = (arguments.first, arguments.second, arguments.third)
    // PROT_SEM, which means nothing on x86-64, is the one further bit that is let through.
    if rights & ~0xf != 0 {
      guard start.isPageAligned else { throw .invalidArgument }
      if length == 0 { return }
      guard let rounded = length.roundedUpToPage, start &+ rounded > start else { throw .noMemory }
      throw .invalidArgument
    }
    try protect(
      at: start, length: length, Protection(rawValue: UInt32(truncatingIfNeeded: rights & 7)))
  }
}
