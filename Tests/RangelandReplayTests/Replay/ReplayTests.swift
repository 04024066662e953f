// SPDX-License-Identifier: Apache-2.0

import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandReplay

/// Plans on address spaces (K-2: every policy gives the results that were recorded).
@Suite(.serialized) struct ReplayTests {
  private func run(
    _ plan: ReplayPlan, _ policy: LockPolicy, statistics: Bool = false,
    frameLimit: Int = PhysicalMemory.defaultFrameLimit, isCancelled: () -> Bool = { false }
  ) throws -> ReplayRun {
    try withWatchdog(seconds: 120, "replay under \(policy)") {
      let memory = try PhysicalMemory(frameLimit: frameLimit)
      return try Replay(
        plan, AddressSpace(policy: policy, memory: memory, statistics: statistics),
        ReplayFiles(sizes: plan.fileSizes)
      )
      .run(isCancelled: isCancelled)
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `the shipped recording has its results under every policy`(_ policy: LockPolicy) throws {
    let plan = ReplayPlan(try Recording(path: ShippedRecordings.path()))
    let found = try run(plan, policy, statistics: true)
    #expect(found.mismatches == 0, "\(found.examples)")
    #expect(found.operations > 30_000)
    #expect(found.byOperation.reduce(0) { $0 + $1.count } == plan.operations)
    let waits = try #require(found.statistics)
    // Every operation asks for the lock; under `.perVMA` a fault may ask twice.
    #expect(waits.requests.values.reduce(0, +) >= UInt64(plan.operations))
    if policy == .ranged { #expect(waits.falseWaits == 0) }
  }

  @Test(arguments: LockPolicy.allCases)
  func `random recordings have their results under every policy`(_ policy: LockPolicy) throws {
    var random = SeededGenerator("replay \(policy)")
    var unexplained = 0
    var operations = 0
    for _ in 0..<30 {
      let plan = ReplayPlan(try RandomProgram.recording(using: &random))
      // The program ran, so there is a history with these results. The planner does not try every one: it may miss
      // it where many calls on the same pages overlap, about once in 100,000 operations of these programs.
      unexplained += plan.substituted.reduce(0) { $0 + $1.count }
      unexplained += plan.steps.count { $0.expected != .success }
      operations += plan.operations
      let found = try run(plan, policy)
      #expect(found.mismatches == 0, "\(found.examples)")
    }
    #expect(unexplained <= operations / 1000, "\(unexplained) of \(operations)")
  }

  @Test(arguments: LockPolicy.allCases)
  func `recordings that no kernel made end too`(_ policy: LockPolicy) throws {
    var random = SeededGenerator("nonsense \(policy)")
    for _ in 0..<30 {
      // Calls succeeded here that no kernel lets succeed: that their results differ is as it should be. Some lock all
      // they map, which takes minutes with 16 GiB of frames.
      let plan = ReplayPlan(try randomRecording(events: 300, using: &random))
      let found = try run(plan, policy, frameLimit: 1 << 14)
      #expect(found.operations == plan.operations)
    }
  }

  @Test func `a result that differs is counted and told`() throws {
    var random = SeededGenerator("difference")
    var plan = ReplayPlan(try RandomProgram.recording(using: &random))
    let index = try #require(plan.steps.firstIndex { $0.action == .unmap })
    plan.steps[index].expected = .failure(22)
    plan.finalLayout.append(
      RecordedArea(start: 0x7000_0000_0000, end: 0x7000_0000_1000, protection: .read))
    let found = try run(plan, .ranged)
    #expect(found.mismatches == 2)
    #expect(found.examples.contains { $0.contains("recorded was errno 22") })
    #expect(found.examples.contains { $0.contains("the mappings at the end differ") })
  }

  @Test func `a cancelled replay ends early with all its threads`() throws {
    let plan = ReplayPlan(try Recording(path: ShippedRecordings.path()))
    #expect(throws: ReplayError.interrupted) {
      _ = try run(plan, .ranged, isCancelled: { true })
    }
  }

  @Test func `a plan can be made of a recording without an event`() throws {
    let plan = ReplayPlan(try Recording(bytes: fileBytes([]), name: "empty"))
    #expect(plan.operations == 0)
    #expect(try run(plan, .ranged).mismatches == 0)
  }
}
