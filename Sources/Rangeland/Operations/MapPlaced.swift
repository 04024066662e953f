// SPDX-License-Identifier: Apache-2.0
//
// Mapping where the space chooses.

import CRangeland
import SystemPackage

extension AddressSpace {
  /// Maps in a gap that the placement chooses.
  func mapPlaced(
    _ length: UInt64, hint: Address?, _ attributes: VMAAttributes, below2GiB: Bool = false,
    _ context: Context
  ) throws(Errno) -> Address {
    var request = PlacementRequest(length: length, placement: placement)
    if below2GiB { request.window = PlacementLimits.lowWindow }
    // Linux `round_hint_to_min`: down to a page, and up to where mappings may begin.
    if let hint, hint.pageStart != 0 {
      request.hint = max(hint.pageStart, PlacementLimits.smallestHint)
    }
    // Linux `thp_get_unmapped_area`; shared memory goes through `shmem_get_unmapped_area`, which aligns only
    // where huge pages are enabled for it (`shmem_enabled`, by default never).
    if request.hint == nil && !attributes.flags.contains(.shared) { alignToHugePages(&request) }
    return policy == .ranged
      ? try mapRanged(request, attributes, context)
      : try mapUnderWholeLock(request, attributes, context)
  }

  /// Wishes for an address on a huge page if the length is a number of them.
  @inline(__always)
  func alignToHugePages(_ request: inout PlacementRequest) {
    let length = request.length
    guard length % PlacementRequest.hugePageSize == 0 else { return }
    request.alignment =
      placement == .linux ? PlacementRequest.hugePageSize : naturalAlignment(length)
  }

  /// Where `.arenas` puts a mapping of whole huge pages: so that it fills granules of the range lock, and page
  /// tables, instead of straddling them. Up to 128 MiB.
  @inline(__always)
  private func naturalAlignment(_ length: UInt64) -> UInt64 {
    min(length & (0 &- length), 128 << 20)
  }

  /// Under `.ranged`: the gap is chosen first; its lock is tried where it is chosen, else waited for.
  private func mapRanged(
    _ request: PlacementRequest, _ wanted: VMAAttributes, _ context: Context
  ) throws(Errno) -> Address {
    while true {
      let attributes = withFutureLock(wanted)
      context.pin()
      var change = LayoutChange()
      var hold: WriteHold?
      let outcome: PlacementOutcome
      do throws(Errno) {
        if hasLimits && !attributes.flags.contains(.special) {
          outcome = try placeLimited(request, wanted, attributes, context, &change, &hold)
        } else {
          outcome = try placeTrying(request, wanted, attributes, context, &change, &hold)
        }
      } catch {
        context.unpin()
        throw error
      }
      switch outcome {
      case .placed(let range):
        finishMap(range, &change, hold.take()!, context)
        context.unpin()
        return range.start
      case .reserved(let reservation):
        // Nothing is held while we wait, the epoch included.
        count(&change, context)
        change.dispose(context)
        context.unpin()
        let late = lock.write(reservation.range, .map)
        if try fill(reservation, wanted, late, context) { return reservation.range.start }
      }
    }
  }

  /// Places, and tries to lock the place; `hold` tells whether it is.
  ///
  /// - Parameter wanted: the attributes without the lock that new mappings get.
  @inline(__always)
  private func placeTrying(
    _ request: PlacementRequest, _ wanted: VMAAttributes, _ attributes: VMAAttributes,
    _ context: Context, _ change: inout LayoutChange, _ hold: inout WriteHold?
  ) throws(Errno) -> PlacementOutcome {
    try layout.pointee.place(request, attributes, context, &change) { range in
      hold = lock.tryWrite(range, .map)
      if hold == nil { return false }
      // Mappings get another lock since: what is held now is made with that one.
      if withFutureLock(wanted).flags != attributes.flags {
        hold = nil
        return false
      }
      attributes.stand(at: range.start)
      return true
    }
  }

  /// The same within the limits.
  @inline(never)
  private func placeLimited(
    _ request: PlacementRequest, _ wanted: VMAAttributes, _ attributes: VMAAttributes,
    _ context: Context, _ change: inout LayoutChange, _ hold: inout WriteHold?
  ) throws(Errno) -> PlacementOutcome {
    let granted = try admitPlaced(request, attributes, context)
    // Before anything is waited for; a reservation counts nothing.
    defer { settle(granted, &change, since: LayoutCounts(), context) }
    return try placeTrying(request, wanted, attributes, context, &change, &hold)
  }

  /// Under the policies that ignore ranges: the lock first, then the choice; the words of the VMAs that
  /// may merge are locked (`.perVMA`) between reserving and mapping, because that may wait for readers.
  private func mapUnderWholeLock(
    _ request: PlacementRequest, _ wanted: VMAAttributes, _ context: Context
  ) throws(Errno) -> Address {
    var hold = lock.writeUnplaced(.map)
    let attributes = withFutureLock(wanted)
    context.pin()
    defer { context.unpin() }
    var change = LayoutChange()
    let isDirect = policy != .perVMA
    let granted = try admitPlaced(request, attributes, context)
    let outcome: PlacementOutcome
    do throws(Errno) {
      outcome = try layout.pointee.place(request, attributes, context, &change) { range in
        attributes.stand(at: range.start)
        return isDirect
      }
    } catch {
      settle(granted, &change, since: LayoutCounts(), context)
      throw error
    }
    settle(granted, &change, since: LayoutCounts(), context)
    switch outcome {
    case .placed(let range):
      hold.rangeKnown(range)
      finishMap(range, &change, hold, context)
      return range.start
    case .reserved(let reservation):
      hold.rangeKnown(reservation.range)
      lockCells(reservation.range, &hold)
      // Nobody else places or replaces while we hold the semaphore.
      let isFilled = try fill(reservation, attributes, hold, context)
      precondition(isFilled, "a reservation went while the whole space was locked")
      return reservation.range.start
    }
  }

  /// Charges a mapping in a gap; special mappings have no limits (Linux `insert_vm_struct`).
  @inline(__always)
  private func admitPlaced(
    _ request: PlacementRequest, _ attributes: VMAAttributes, _ context: Context
  ) throws(Errno) -> Charge {
    if !hasLimits || attributes.flags.contains(.special) { return Charge() }
    if attributes.flags.contains(.locked) {
      do throws(Errno) {
        try refuseLock(
          of: request.length >> 12, attributes.flags, isAsked: attributes.asksForLock, context)
      } catch {
        // A length that no gap holds is what Linux finds first.
        try refuseGapless(request.length, below2GiB: request.window != nil)
        throw error
      }
    }
    return try admit(request.length, attributes.flags, context)
  }

  /// Maps a reserved range whose lock is held now. `false`: a fixed mapping took it; search again.
  private func fill(
    _ reservation: Reservation, _ wanted: VMAAttributes, _ hold: consuming WriteHold,
    _ context: Context
  ) throws(Errno) -> Bool {
    context.pin()
    defer { context.unpin() }
    let attributes = withFutureLock(wanted)
    attributes.stand(at: reservation.range.start)
    var change = LayoutChange()
    var granted = Charge()
    do throws(Errno) {
      granted = try admitPlaced(
        PlacementRequest(length: reservation.range.length), attributes, context)
      let isFilled = try layout.pointee.fill(reservation, attributes, hold, context, &change)
      settle(granted, &change, since: LayoutCounts(), context)
      if isFilled { finishMap(reservation.range, &change, hold, context) }
      return isFilled
    } catch {
      settle(granted, &change, since: LayoutCounts(), context)
      cancel(reservation, context)
      throw error
    }
  }

  /// Gives a reservation up. That cuts nothing, but needs a leaf's content block: it is tried again until
  /// some other operation has given one back, because a reservation that stays would be a gap lost.
  func cancel(_ reservation: Reservation, _ context: Context) {
    while true {
      var change = LayoutChange()
      do throws(Errno) {
        try layout.pointee.cancel(reservation, context, &change)
        change.dispose(context)
        return
      } catch {
        rl_yield()
      }
    }
  }

  @inline(__always)
  private func finishMap(
    _ range: AddressRange, _ change: inout LayoutChange, _ hold: consuming WriteHold,
    _ context: Context
  ) {
    park.pass(.map)
    LockMap.observe(.futureLock, hold, range)
    LockMap.observe(.layout, hold, range)
    LockMap.observe(.vmaFlags, hold, range)
    LockMap.observe(.vmaOffset, hold, range)
    end(&change, hold, context)
  }
}
