// SPDX-License-Identifier: Apache-2.0
//
// Looking at mappings. No lock: records are immutable, and a listing retries where it saw a change.
//
// Linux: `find_vma`, `find_vma_intersection`, /proc/pid/maps, PROCMAP_QUERY.

extension AddressSpace {
  /// The mapping that covers `address`; `nil` when none does (PROCMAP_QUERY).
  public func mapping(at address: Address) -> MappingInfo? {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    return layout.pointee.lookUp(address, context)?.info
  }

  /// The first mapping that ends above `address`: the one that covers it, or else the next (`find_vma`).
  public func mapping(atOrAfter address: Address) -> MappingInfo? {
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    if layout.pointee.usesCache, let record = layout.pointee.lookUp(address, context) {
      return record.info
    }
    return layout.pointee.findNext(address)?.info
  }

  /// The first mapping that shares an address with `range` (`find_vma_intersection`).
  public func mapping(intersecting range: AddressRange) -> MappingInfo? {
    guard let found = mapping(atOrAfter: range.start), found.range.start < range.end else {
      return nil
    }
    return found
  }

  /// All mappings, ascending and disjoint. Each mapping that exists during the whole call is listed once and
  /// whole, and no gap is shown that was never there; one that is made meanwhile out of others that are
  /// listed already is listed with the rest of its pages. Takes no lock and makes no writer wait.
  public func mappings(in range: AddressRange = .wholeSpace) -> [MappingInfo] {
    let context = reclaimer.context()
    var result: [MappingInfo] = []
    context.pin()
    layout.pointee.forEachRecord(in: range) { record, part in
      var info = record.info
      if part.start > info.range.start {
        info.range = part
        info.pageOffset = record.pointee.pageOffset(at: part.start)
      }
      result.append(info)
      return true
    }
    context.unpin()
    return result
  }

  /// Checks what must hold of the VMA tree. Traps with the rule that is broken; checked builds only.
  /// Nothing else may run.
  func checkInvariants() {
    #if RANGELAND_CHECKS
      let context = reclaimer.context()
      context.pin()
      layout.pointee.checkInvariants()
      context.unpin()
    #endif
  }
}
