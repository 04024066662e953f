// SPDX-License-Identifier: Apache-2.0
//
// Giving a forked space the VMAs of its parent.
//
// Source: Linux mm/mmap.c `dup_mmap`, which stores the copies as they are: a fork merges nothing.

import SystemPackage

extension LayoutTree {
  /// Adds a VMA where nothing is mapped, without merging.
  ///
  /// - Throws: `.noMemory`; nothing has changed.
  /// - Precondition: pinned.
  borrowing func append(
    _ range: AddressRange, _ attributes: VMAAttributes, _ hold: borrowing WriteHold,
    _ context: Context, _ change: inout LayoutChange
  ) throws(Errno) {
    LockMap.observe(.layout, hold, range)
    LockMap.observe(.vmaFlags, hold, range)
    LockMap.observe(.vmaOffset, hold, range)
    let result = splice(
      range.start, range.end, context, &change,
      { _, splice in
        splice.begin(range.start, range.end, dropsReservations: false)
        splice.add(RecordDraft(attributes, range.start, range.end))
        return true
      })
    if result == nil { throw .noMemory }
  }
}
