// SPDX-License-Identifier: Apache-2.0
//
// `mremap` with raw arguments.
//
// Source: Linux mm/mremap.c `check_mremap_params`.

import SystemPackage

extension AddressSpace {
  /// address, length, new length, `MREMAP_*`, new address.
  func linuxRemap(_ arguments: LinuxArguments) throws(Errno) -> Address {
    // MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP.
    let flags = arguments.fourth
    if flags & ~7 != 0 { throw .invalidArgument }
    let (mayMove, isFixed) = (flags & 1 != 0, flags & 2 != 0)
    // A fixed address implies a move; what else is wrong then is the same error.
    if isFixed && !mayMove { throw .invalidArgument }
    let target: RemapTarget =
      isFixed ? .fixed(arguments.fifth) : mayMove ? .hint(arguments.fifth) : .inPlace
    return try remap(
      at: arguments.first, length: arguments.second, to: arguments.third, target,
      keepingSource: flags & 4 != 0)
  }
}
