// SPDX-License-Identifier: Apache-2.0
//
// Keeping the range of a mapping that goes for the one that is to come: what replaces it in two steps is one step for
// those who look for a gap. Rule 3 of docs/design.md section 4.

import SystemPackage

extension LayoutTree {
  /// Unmaps `range`, as `remove`, and reserves it if something was mapped there. Reservations of others go: their owners
  /// search again. Others choose no place in it until `insert` has filled it, or `giveUp`.
  ///
  /// - Throws: `.noMemory`, and nothing has changed.
  /// - Precondition: as for `insert`.
  borrowing func reserve(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) throws(Errno) {
    LockMap.observe(.layout, hold, range)
    let result = splice(
      range.start, range.end, context, &change,
      { section, splice in
        splice.begin(range.start, range.end, dropsReservations: true)
        var left: RecordRef?
        var right: RecordRef?
        var isEmpty = true
        section.forEachEntry(range.start, range.end) { record in
          splice.extend(record)
          if record.pointee.isReservation { return true }
          isEmpty = false
          if record.pointee.start < range.start { left = record }
          if record.pointee.end > range.end { right = record }
          return true
        }
        if let left { splice.add(RecordDraft(left, left.pointee.start, range.start)) }
        splice.add(RecordDraft(reserving: range.start, range.end))
        if let right { splice.add(RecordDraft(right, range.end, right.pointee.end)) }
        return !isEmpty
      })
    if result == nil { throw .noMemory }
  }

  /// Takes the reservation of a held range away, if `reserve` has left one and nothing has filled it. Reservations of
  /// others that have come instead go too: their owners search again.
  ///
  /// - Returns: `false` without memory; it still stands.
  /// - Precondition: as for `insert`.
  borrowing func giveUp(
    _ range: AddressRange, _ hold: borrowing WriteHold, _ context: Context,
    _ change: inout LayoutChange
  ) -> Bool {
    LockMap.observe(.layout, hold, range)
    let result = splice(
      range.start, range.end, context, &change,
      { section, splice in
        splice.begin(range.start, range.end, dropsReservations: true)
        splice.pointee.dropsAreas = false
        var isEmpty = true
        section.forEachEntry(range.start, range.end) { record in
          if record.pointee.isReservation {
            isEmpty = false
            splice.extend(record)
          }
          return true
        }
        return !isEmpty
      })
    return result != nil
  }
}
