// SPDX-License-Identifier: Apache-2.0

import CRangeland
import Testing

@testable import Rangeland

@Suite struct ReclaimerTests {
  @Test func `a recycled node is given out again at once`() {
    let reclaimer = Reclaimer.make()!
    defer { Reclaimer.destroy(reclaimer) }
    let context = reclaimer.context()
    let a = context.allocate(.record)!
    context.recycle(a, .record)
    #expect(context.allocate(.record) == a)
  }

  @Test func `a retired node is not reused while its thread stays pinned`() {
    let reclaimer = Reclaimer.make()!
    defer { Reclaimer.destroy(reclaimer) }
    let context = reclaimer.context()
    context.pin()
    let node = context.allocate(.record)!
    context.retire(node, .record)
    for _ in 0..<1000 {
      let other = context.allocate(.record)!
      #expect(other != node)
      context.retire(other, .record)
    }
    context.unpin()
  }

  @Test func `a churn of retired nodes reaches a steady state`() {
    let reclaimer = Reclaimer.make()!
    defer { Reclaimer.destroy(reclaimer) }
    let context = reclaimer.context()
    for _ in 0..<100_000 {
      context.pin()
      context.retire(context.allocate(.record)!, .record)
      context.unpin()
    }
    #expect(reclaimer.pointee.pools[SlabClass.record.rawValue].nodesCreated < 1000)
  }

  @Test func `reserved allocations do not fail, the next one does`() {
    let reclaimer = Reclaimer.make()!
    defer { Reclaimer.destroy(reclaimer) }
    let context = reclaimer.context()
    reclaimer.failAllocation(after: 2)
    #expect(context.reserve(.record, count: 2))
    #expect(context.allocate(.record) != nil)
    #expect(context.allocate(.record) != nil)
    #expect(context.allocate(.record) == nil)
    #expect(reclaimer.disarmFailure())
    #expect(context.allocate(.record) != nil)
  }
}
