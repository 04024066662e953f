// SPDX-License-Identifier: Apache-2.0
//
// Throwing pages away while the mapping stays: the advice that programs give most, by a name of its own.

import SystemPackage

extension AddressSpace {
  /// Throws the pages of a range away (`MADV_DONTNEED`): private memory reads as zeros, or as its file,
  /// again; shared memory keeps its content; guards stay.
  ///
  /// Takes the space lock for reading over the range.
  ///
  /// - Parameters:
  ///   - start: a page-aligned address.
  ///   - length: in bytes, rounded up to pages; 0 does nothing.
  /// - Throws: `EINVAL` for an unaligned start, a length that wraps, or a locked mapping; `EPERM` for a sealed
  ///   mapping whose owner may not write to it; `ENOMEM` when a part of the range is not mapped, after all that
  ///   is mapped was done.
  public func dontNeed(at start: Address, length: UInt64) throws(Errno) {
    try advise(.dontNeed, at: start, length: length)
  }
}
