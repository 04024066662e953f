// SPDX-License-Identifier: Apache-2.0
//
// `madvise` with raw arguments.
//
// Source: Linux mm/madvise.c `do_madvise`, `madvise_behavior_valid`.

import SystemPackage

extension AddressSpace {
  /// address, length, `MADV_*`.
  func linuxAdvise(_ arguments: LinuxArguments) throws(Errno) {
    // An int: the kernel looks at the low half of the register.
    switch Int32(truncatingIfNeeded: arguments.third) {
    case 4: try dontNeed(at: arguments.first, length: arguments.second)
    default: throw .invalidArgument
    }
  }
}
