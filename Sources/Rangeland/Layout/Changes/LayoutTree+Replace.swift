// SPDX-License-Identifier: Apache-2.0
//
// Changing a VMA as a whole, without a merge or a split.
//
// Source: Linux `vm_flags_clear`, `unlink_anon_vmas`, on a VMA in place.

import SystemPackage

extension LayoutTree {
  /// Replaces the VMA that covers `address` by one with the same bounds that `edit` has changed.
  ///
  /// - Throws: `.badAddress` when there is none, `.noMemory`; nothing has changed.
  /// - Precondition: pinned; `hold` covers what `edit` changes: the whole VMA for flags and identity.
  borrowing func replace(
    _ address: Address, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange, _ edit: (UnsafeMutablePointer<RecordDraft>) -> Void
  ) throws(Errno) {
    guard let seen = find(address) else { throw .badAddress }
    LockMap.observe(.layout, hold, seen.pointee.range)
    LockMap.observe(.vmaFlags, hold, seen.pointee.range)
    let result = splice(
      seen.pointee.start, seen.pointee.end, context, &change,
      { section, splice in
        guard let record = Self.areaAbove(section, address) else { return false }
        splice.begin(record.pointee.start, record.pointee.end, dropsReservations: false)
        var draft = RecordDraft(record, record.pointee.start, record.pointee.end)
        withUnsafeMutablePointer(to: &draft) { edit($0) }
        splice.add(draft)
        return true
      })
    guard let result else { throw .noMemory }
    if !result { throw .badAddress }
  }
}
