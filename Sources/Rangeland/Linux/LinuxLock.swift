// SPDX-License-Identifier: Apache-2.0
//
// `mlock2` with raw arguments.
//
// Source: Linux mm/mlock.c `SYSCALL_DEFINE3(mlock2)`.

import SystemPackage

extension AddressSpace {
  /// address, length, `MLOCK_*`.
  func linuxLock(_ arguments: LinuxArguments) throws(Errno) {
    // An int. MLOCK_ONFAULT is the one flag, and unknown ones come before everything else.
    let flags = UInt32(truncatingIfNeeded: arguments.third)
    if flags & ~1 != 0 { throw .invalidArgument }
    try lockMemory(at: arguments.first, length: arguments.second, onFault: flags & 1 != 0)
  }
}
