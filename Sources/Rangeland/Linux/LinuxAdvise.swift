// SPDX-License-Identifier: Apache-2.0
//
// `madvise` with raw arguments.
//
// Source: Linux mm/madvise.c `do_madvise`, `madvise_behavior_valid`.

import SystemPackage

extension AddressSpace {
  /// address, length, `MADV_*`.
  func linuxAdvise(_ arguments: LinuxArguments) throws(Errno) {
    // An int: the kernel looks at the low half of the register, before anything else.
    guard let advice = Advice(rawValue: Int32(truncatingIfNeeded: arguments.third)) else {
      throw .invalidArgument
    }
    try advise(advice, at: arguments.first, length: arguments.second)
  }
}
