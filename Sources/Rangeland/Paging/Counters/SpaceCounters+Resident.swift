// SPDX-License-Identifier: Apache-2.0
//
// Resident pages, by kind and, in a space that was made with a limit of them, all together.
//
// Guarantee: that of SpaceCounters.swift: pages are made present only within the limit, and one that fits is not refused.
// Mechanism: a fault admits its pages before it makes them and settles afterwards; meanwhile it takes latches of page tables
//   and nothing that is held for a charge. Who takes pages out only gives back.
// Cost: in other spaces one load and a branch.
// Source: Linux mm/memcontrol.c `try_charge_memcg`, for one space.

/// What was admitted: `settleResident` ends it.
struct ResidentCharge {
  fileprivate var isCounted: Bool
  fileprivate var pages: Int64
}

extension SpaceCounters {
  /// Before the space is used: from now on `resident` is counted.
  func countResident() { shared.pointee.countsResident.store(true, ordering: .relaxed) }

  @inline(__always)
  var countsResident: Bool { shared.pointee.countsResident.load(ordering: .relaxed) }

  /// Admits pages that are to become resident; `nil` = the limit does not allow them. The thread is undecided until
  /// `settleResident`: see `begin`.
  @inline(__always)
  func admitResident(_ pages: Int64, _ context: Context) -> ResidentCharge? {
    if !countsResident || pages == 0 { return ResidentCharge(isCounted: countsResident, pages: 0) }
    return admitCounted(pages, context)
  }

  @inline(never)
  private func admitCounted(_ pages: Int64, _ context: Context) -> ResidentCharge? {
    guard let granted = begin(Charge(residentPages: pages), context) else { return nil }
    return ResidentCharge(isCounted: true, pages: granted.residentPages)
  }

  /// Ends a charge with the pages that did become resident. Under no latch.
  @inline(__always)
  func settleResident(_ charge: ResidentCharge, _ pages: Int64, _ context: Context) {
    if charge.isCounted { settleCounted(charge, pages, context) }
  }

  @inline(never)
  private func settleCounted(_ charge: ResidentCharge, _ pages: Int64, _ context: Context) {
    settle(
      Charge(residentPages: charge.pages, isCharged: charge.pages != 0),
      Charge(residentPages: pages), context)
  }

  /// Counts pages that have become resident whatever the limit is: those of a fork.
  func addResident(_ pages: Int64, _ context: Context) {
    if countsResident { move(.resident, pages, context) }
  }

  /// Counts pages that are resident no more.
  @inline(__always)
  func removeResident(_ pages: Int64, _ context: Context) {
    if countsResident { removeCounted(pages, context) }
  }

  @inline(never)
  private func removeCounted(_ pages: Int64, _ context: Context) {
    uncharge(.resident, pages, context)
  }
}
