// SPDX-License-Identifier: Apache-2.0
//
// Choosing an address and taking it, in one atomic step: rule 3 of docs/design.md section 4. C1.
//
// Guarantee: two placements never choose overlapping ranges; a listing sees neither the choice nor a
//   mapping that is not there.
// Mechanism: the gap is found without locks, checked again under the leaf latches, and there either the
//   space lock is had by a try and the VMA stands at once, or a reservation keeps the range until its
//   owner has waited for the lock.
// Source: Linux `arch_get_unmapped_area_topdown`, `arch_get_unmapped_area`, `__get_unmapped_area`.

import Synchronization
import SystemPackage

extension LayoutTree {
  /// Finds a place for a new VMA and maps or reserves it.
  ///
  /// - Parameters:
  ///   - attributes: what to map. An object's mapping must know its address: for one, answer `false` from
  ///     `tryLock`, wait for the range, make the mapping and `fill` the reservation with it.
  ///   - tryLock: *tries* to lock the range that was chosen, without waiting; called under leaf latches,
  ///     once for each choice. `true` = locked: the VMA is mapped.
  /// - Throws: `.noMemory` when no gap is long enough or there is no memory; nothing has changed.
  /// - Precondition: pinned, no layout latch is held.
  @inline(__always)
  borrowing func place(
    _ request: PlacementRequest, _ attributes: VMAAttributes, _ context: Context,
    _ change: inout LayoutChange, tryLock: (AddressRange) -> Bool
  ) throws(Errno) -> PlacementOutcome {
    while true {
      guard let start = choose(request, context) else { throw .noMemory }
      let end = start &+ request.length
      let range = AddressRange(start: start, end: end)
      var isLocked = false
      let result = splice(
        Self.below(start), Self.above(end), context, &change,
        { section, splice in
          var isTaken = false
          section.forEachEntry(start, end) { _ in
            isTaken = true
            return false
          }
          if let next = end < Address.spaceEnd ? section.entry(covering: end) : nil,
            next.pointee.startWithGuard < end
          {
            isTaken = true
          }
          // Taken since we looked: the caller's loop looks again.
          if isTaken { return false }
          let isPlanned = planInsert(
            section, start, end, attributes, replacing: false, into: splice)
          splice.pointee.mayBecomeReservation = true
          return isPlanned
        },
        { splice in
          LockMap.observe(.gapSearch, .layoutLeaf, .write)
          isLocked = tryLock(range)
          if !isLocked {
            splice.begin(start, end, dropsReservations: false)
            splice.add(RecordDraft(reserving: start, end))
          }
        })
      guard let result else { throw .noMemory }
      if !result { continue }
      if isLocked { return .placed(range) }
      // The reservation is the last record that this thread has made.
      return .reserved(Reservation(range: range, generation: Self.generation(context)))
    }
  }

  /// Maps a reserved range that the caller holds now. `false` = a fixed mapping
  /// has taken the place: search again.
  ///
  /// - Throws: `.noMemory`; the reservation still stands.
  /// - Precondition: pinned, no layout latch is held.
  borrowing func fill(
    _ reservation: Reservation, _ attributes: VMAAttributes, _ hold: borrowing WriteHold,
    _ context: Context, _ change: inout LayoutChange
  ) throws(Errno) -> Bool {
    let range = reservation.range
    LockMap.observe(.layout, hold, range)
    let result = splice(
      Self.below(range.start), Self.above(range.end), context, &change,
      { section, splice in
        guard isStanding(reservation, section) else { return false }
        return planInsert(
          section, range.start, range.end, attributes, replacing: false, into: splice)
      })
    guard let result else { throw .noMemory }
    return result
  }

  /// Gives a reserved range up, if it still is reserved.
  ///
  /// - Throws: `.noMemory`; the reservation still stands.
  /// - Precondition: pinned, no layout latch is held.
  borrowing func cancel(
    _ reservation: Reservation, _ context: Context, _ change: inout LayoutChange
  ) throws(Errno) {
    let range = reservation.range
    let result = splice(
      range.start, range.end, context, &change,
      { section, splice in
        guard isStanding(reservation, section) else { return false }
        splice.begin(range.start, range.end, dropsReservations: true)
        splice.pointee.dropsAreas = false
        return true
      })
    if result == nil { throw .noMemory }
  }

  @inline(__always)
  private borrowing func isStanding(
    _ reservation: Reservation, _ section: LeafSection
  ) -> Bool {
    guard let record = section.entry(covering: reservation.range.start) else { return false }
    return record.pointee.isReservation
      && record.pointee.generation == reservation.generation
  }

  /// Whether there was a gap of that length at some instant. Takes nothing.
  ///
  /// - Precondition: pinned.
  borrowing func hasGap(_ length: UInt64, below2GiB: Bool = false) -> Bool {
    if below2GiB { return choose(length, Address.pageSize, in: PlacementLimits.lowWindow) != nil }
    return chooseLikeLinux(length, Address.pageSize) != nil
  }

  private borrowing func choose(
    _ length: UInt64, _ alignment: UInt64, in window: AddressRange
  ) -> Address? {
    bottomUpGap(length, alignment, from: window.start, below: window.end)
  }

  /// An address that was free when it was looked at, or `nil`.
  private borrowing func choose(_ request: PlacementRequest, _ context: Context) -> Address? {
    if let hint = request.hint, isFree(hint, request.length),
      // Linux looks at the end of the window only.
      request.window == nil || hint &+ request.length <= request.window.unsafelyUnwrapped.end
    {
      return hint
    }
    if let window = request.window {
      if request.alignment > Address.pageSize,
        let address = choose(request.length, request.alignment, in: window)
      {
        return address
      }
      return choose(request.length, Address.pageSize, in: window)
    }
    if request.placement == .arenas, let address = chooseInStretch(request, context) {
      return address
    }
    if request.alignment > Address.pageSize,
      let address = chooseLikeLinux(request.length, request.alignment)
    {
      return address
    }
    return chooseLikeLinux(request.length, Address.pageSize)
  }

  private borrowing func chooseLikeLinux(_ length: UInt64, _ alignment: UInt64) -> Address? {
    let low = limits.minimum
    let high = limits.topDownBase
    if let address = topDownGap(length, alignment, above: low, below: high, usingHints: true) {
      return address
    }
    // A hint may have misled us while a thread was on its way up.
    if let address = topDownGap(length, alignment, above: low, below: high, usingHints: false) {
      return address
    }
    return bottomUpGap(length, alignment, from: limits.bottomUpBase, below: Address.spaceEnd)
  }

  /// Bytes of a stretch, and its alignment.
  static var stretchSize: UInt64 { 64 << 30 }

  /// Bytes at the top of a stretch where nothing is placed: a change reads what its range touches, and
  /// would otherwise latch the neighbour's leaf. A huge page, so that alignment loses nothing.
  static var stretchMargin: UInt64 { 2 << 20 }

  /// Top-down in the thread's stretch, or in a fresh one; `nil` when none is left or the mapping is too
  /// long for one.
  private borrowing func chooseInStretch(
    _ request: PlacementRequest, _ context: Context
  ) -> Address? {
    let alignment = request.alignment
    if request.length >= Self.stretchSize - Self.stretchMargin - alignment { return nil }
    let thread = thread(context)
    if thread.pointee.stretch == 0, !takeStretch(thread) { return nil }
    while true {
      let low = thread.pointee.stretch
      if let address = topDownGap(
        request.length, alignment, above: low, below: low + Self.stretchSize - Self.stretchMargin,
        usingHints: true)
      {
        return address
      }
      if !takeStretch(thread) { return nil }
    }
  }

  private borrowing func takeStretch(_ thread: UnsafeMutablePointer<LayoutThread>) -> Bool {
    let top = limits.topDownBase / Self.stretchSize
    let bottom = (limits.minimum + Self.stretchSize - 1) / Self.stretchSize
    if stretchesTaken.load(ordering: .relaxed) >= top - bottom { return false }
    // Relaxed: the number alone matters.
    let taken = stretchesTaken.add(1, ordering: .relaxed).oldValue
    if taken >= top - bottom { return false }
    thread.pointee.stretch = (top - 1 - taken) * Self.stretchSize
    return true
  }
}
