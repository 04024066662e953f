// SPDX-License-Identifier: Apache-2.0
//
// What is between a mapping that goes and the one that replaces it in a second step.

import Testing

@testable import Rangeland

@Suite struct ReserveTests {
  private let range = AddressRange(start: base + 2 * page, end: base + 4 * page)

  /// Where a mapping would come that wishes for the range; its reservation is given up again.
  private func choice(_ space: AddressSpace, _ context: Context) throws -> AddressRange? {
    var change = LayoutChange()
    let outcome = try space.layout.pointee.place(
      PlacementRequest(length: range.length, hint: range.start), VMAAttributes(flags: .special),
      context, &change
    ) { _ in false }
    change.dispose(context)
    guard case .reserved(let reservation) = outcome else { return nil }
    space.cancel(reservation, context)
    return reservation.range
  }

  /// - Parameter mapped: pages above `base`, where the range is page 2 and 3.
  @Test(arguments: [0..<6, 2..<4, 3..<6, 0..<3, 3..<4] as [Range<UInt64>])
  func `what replaces a mapping has its place until it comes or is given up`(
    _ mapped: Range<UInt64>
  ) throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, mapped.lowerBound, mapped.upperBound - mapped.lowerBound)
    let before = LockMap.enter(.remap)
    defer { LockMap.leave(before) }
    let hold = space.lock.write(range, .remap)
    let context = space.reclaimer.context()
    context.pin()
    defer { context.unpin() }
    var change = LayoutChange()
    try space.layout.pointee.reserve(range, hold, context, &change)
    let others = try #require(try choice(space, context))
    #expect(!others.overlaps(range))
    // What stands outside of it is still there, and nothing inside.
    let outside = mapped.filter { !(2..<4).contains($0) }
    for index in 0..<6 as Range<UInt64> {
      #expect((space.layout.pointee.find(base + index * page) != nil) == outside.contains(index))
    }
    #expect(space.layout.pointee.giveUp(range, hold, context, &change))
    #expect(try choice(space, context) == range)
    space.end(&change, hold, context)
    #expect(
      space.usage.mappings == (outside.contains { $0 < 2 } ? 1 : 0)
        + (outside.contains { $0 > 3 } ? 1 : 0))
    space.checkInvariants()
  }

  @Test func `where nothing was mapped nothing is reserved`() throws {
    let space = try makeSpace(.ranged)
    let before = LockMap.enter(.remap)
    defer { LockMap.leave(before) }
    let hold = space.lock.write(range, .remap)
    let context = space.reclaimer.context()
    context.pin()
    defer { context.unpin() }
    var change = LayoutChange()
    try space.layout.pointee.reserve(range, hold, context, &change)
    #expect(try choice(space, context) == range)
    space.end(&change, hold, context)
  }
}
