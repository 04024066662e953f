// SPDX-License-Identifier: Apache-2.0
//
// That checked builds would notice: each of the checkers' rules, broken on purpose in a process of its own.

import RangeLocks
import Testing

@testable import Rangeland

#if RANGELAND_CHECKS
  @Suite struct CheckedBuildTests {
    private func trapped(_ result: ExitTest.Result?, with message: String) -> Bool {
      String(decoding: result?.standardErrorContent ?? [], as: UTF8.self).contains(message)
    }

    fileprivate static let pages = AddressRange(start: base, end: base + 4 * page)

    @Test(arguments: LockPolicy.allCases)
    func `what a hold covers may be touched`(_ policy: LockPolicy) throws {
      let space = try makeSpace(policy)
      let before = LockMap.enter(.unmap)
      defer { LockMap.leave(before) }
      let hold = space.lock.write(Self.pages, .unmap)
      LockMap.observe(.layout, hold, Self.pages)
      LockMap.observe(.layout, hold, AddressRange(pageOf: base + 3 * page))
      hold.release()
    }

    @Test func `an access beyond the hold traps`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        let space = try makeSpace(.ranged)
        let hold = space.lock.write(CheckedBuildTests.pages, .unmap)
        LockMap.observe(.layout, hold, AddressRange(start: base, end: base + 5 * page))
      }
      #expect(trapped(result, with: "touched at"))
    }

    @Test func `an access beyond the hold traps under policies that lock more`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        let space = try makeSpace(.semaphore)
        let hold = space.lock.read(CheckedBuildTests.pages, .fault)
        LockMap.observe(.pageTableEntry, hold, AddressRange(pageOf: base - page))
      }
      #expect(trapped(result, with: "touched at"))
    }

    @Test func `an access that no row declares traps`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        let space = try makeSpace(.ranged)
        let hold = space.lock.read(CheckedBuildTests.pages, .dontNeed)
        LockMap.observe(.vmaOffset, hold, CheckedBuildTests.pages)
      }
      #expect(trapped(result, with: "no row declares"))
    }

    @Test func `an access without the inner lock traps`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        _ = LockMap.enter(.fault)
        LockMap.observe(.pageTableEntry, .pageTable, .write)
      }
      #expect(trapped(result, with: "without its page-table latch"))
    }

    @Test func `waiting for the space lock under a leaf latch traps`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        let space = try makeSpace(.ranged)
        let context = space.reclaimer.context()
        context.pin()
        _ = space.layout.pointee.latch(base, base + page)
        _ = space.lock.write(CheckedBuildTests.pages, .unmap)
      }
      #expect(trapped(result, with: "lock order: space is wanted while layoutLeaf is held"))
    }

    @Test func `two operations of a thread on one space trap`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        let space = try makeSpace(.ranged)
        let hold = space.lock.read(CheckedBuildTests.pages, .fault)
        try space.unmap(at: base + 64 * page, length: page)
        hold.release()
      }
      #expect(trapped(result, with: "the space is used by a hook that runs under its lock"))
    }

    @Test func `mapping memory from the kernel under a leaf latch traps`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        let space = try makeSpace(.ranged)
        let context = space.reclaimer.context()
        context.pin()
        _ = space.layout.pointee.latch(base, base + page)
        // More than any cache holds.
        _ = context.reserve(.leaf, count: 20_000)
      }
      #expect(trapped(result, with: "a layout leaf is latched across a call to the kernel"))
    }
  }
#endif
