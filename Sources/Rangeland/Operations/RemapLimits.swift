// SPDX-License-Identifier: Apache-2.0
//
// What the limits say to a mapping that grows or moves.
//
// Linux: mm/mremap.c `check_mremap_params`, `check_prep_vma`, `prep_move_vma`, `vrm_calc_charge`.

import SystemPackage

extension AddressSpace {
  /// Whether so many more mappings would be allowed: a move may cut several, and Linux asks for all of them
  /// before it begins.
  func allowsRemap(sparing areas: Int64, _ context: Context) -> Bool {
    !hasLimits || counters.allows(.mapCount, Charge(areas: areas), context)
  }

  /// Refuses growth beyond the limits of locks, size and data as they are before a fixed target is emptied, as Linux
  /// does.
  func refuseGrowth(of pages: UInt64, _ flags: VMAFlags) throws(Errno) {
    if !hasLimits { return }
    let context = reclaimer.context()
    try refuseLock(of: pages, flags, isAsked: false, context)
    var wanted = Charge(pages: Int64(pages))
    if flags.countsAsData { wanted.dataPages = Int64(pages) }
    guard let granted = counters.begin(wanted, context) else { throw .noMemory }
    counters.settle(granted, Charge(), context)
  }

  /// Charges what a mapping grows by, runs `body`, which makes the change, and settles.
  ///
  /// - Throws: `ENOMEM` beyond the limits of the space's size, of data, or of what may be promised.
  func admittingGrowth(
    _ request: RemapRequest, _ flags: VMAFlags, _ change: inout LayoutChange, _ context: Context,
    _ body: (inout LayoutChange) throws(Errno) -> RemapStep
  ) throws(Errno) -> RemapStep {
    let isDoubled = request.keepsSource || request.oldLength == 0
    let growth =
      isDoubled
      ? request.newLength : request.newLength - min(request.newLength, request.oldLength)
    var granted = Charge()
    if growth > 0 {
      // A source that is kept is not locked any more. One that grows where it is needs no other mapping.
      granted = try admit(
        growth, flags, lockedLength: request.keepsSource ? 0 : growth, areasMayBeFewer: true,
        context)
    }
    let before = change.counts
    let step: RemapStep
    do throws(Errno) {
      step = try body(&change)
    } catch {
      settle(granted, &change, since: before, context)
      throw error
    }
    settle(granted, &change, since: before, context)
    return step
  }

  /// As `move`, within the limits.
  func moveWithinLimits(
    _ request: RemapRequest, to address: Address, _ place: Reservation?, _ flags: VMAFlags,
    _ hold: borrowing WriteHold, _ context: Context, _ change: inout LayoutChange,
    _ drops: inout FrameDropList
  ) throws(Errno) -> RemapStep {
    let mayMove = allowsRemap(sparing: 5, context)
    return try admittingGrowth(request, flags, &change, context) { (change) throws(Errno) in
      if !mayMove { throw .noMemory }
      return try move(request, to: address, place, hold, context, &change, &drops)
    }
  }
}
