// SPDX-License-Identifier: Apache-2.0

import CKernelProtocol
import Foundation
import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandReplay

/// Plans on the kernel itself, and where they go there.
@Suite(.serialized) struct KernelReplayTests {
  private func run(_ plan: ReplayPlan) throws -> (run: KernelRun, leftOut: [OperationKind: Int]) {
    try withWatchdog(seconds: 120, "replay on the kernel") {
      let replay = try KernelReplay(plan, ReplayFiles(sizes: plan.fileSizes))
      return (try replay.run(isCancelled: { false }), replay.leftOut)
    }
  }

  @Test func `random recordings have their results on the kernel`() throws {
    var random = SeededGenerator("kernel")
    for _ in 0..<20 {
      let plan = ReplayPlan(try RandomProgram.recording(using: &random))
      let found = try run(plan)
      #expect(found.run.mismatches == 0, "\(found.run.examples)")
      #expect(found.run.operations + found.leftOut.values.reduce(0, +) == plan.operations)
    }
  }

  @Test func `a result that differs is counted and told`() throws {
    var random = SeededGenerator("kernel differs")
    var plan = ReplayPlan(try RandomProgram.recording(using: &random))
    let index = try #require(plan.steps.firstIndex { $0.action == .unmap })
    plan.steps[index].expected = .failure(22)
    let found = try run(plan)
    #expect(found.run.mismatches == 1)
    #expect(found.run.examples.first?.contains("recorded was errno 22") == true)
  }

  @Test func `refused accesses, growing stacks, the heap, moves and copies come out as recorded`()
    throws
  {
    let stack = RecordedArea(
      start: 0x7fff_1000_0000, end: 0x7fff_1000_4000, protection: [.read, .write], backing: .stack)
    var recording = try Recording(
      info: plainInfo, files: [], initialLayout: [stack], name: "test")
    for event in [
      beginning(0, at: 0),
      call(.brk, CallArguments(0), at: 1, result: 0x5555_5000_0000),
      call(.brk, CallArguments(0x5555_5000_4800), at: 3, result: 0x5555_5000_4800),
      fault(0x5555_5000_4008, thread: 0, at: 6),
      fault(0x7fff_0fff_e010, thread: 0, at: 7),
      call(
        .mmap, CallArguments(0, 0x3000, 3, 0x22, .max, 0), at: 10, result: 0x7f00_0000_1000),
      fault(0x7f00_0000_2000, thread: 0, at: 12),
      call(
        .mremap, CallArguments(0x7f00_0000_1000, 0x3000, 0x8000, 1), at: 13,
        result: 0x7f00_4000_0000),
      // Nothing is there any more.
      fault(0x7f00_0000_2000, thread: 0, at: 16),
      fault(0x7f00_4000_1000, thread: 0, at: 17),
      call(.clone, CallArguments(0x11, 0, 0, 0, 0), at: 18, result: 7),
      call(.munmap, CallArguments(0x7f00_4000_0000, 0x8000), at: 20),
    ] { try recording.append(event) }
    let plan = ReplayPlan(recording)
    let found = try run(plan)
    #expect(plan.steps.contains { $0.expected == .refusal(.notMapped) })
    #expect(found.run.mismatches == 0, "\(found.run.examples)")
    #expect(found.leftOut.isEmpty)
    #expect(found.run.operations == plan.operations && plan.operations == 11, "\(plan.operations)")
  }

  @Test func `what lies side by side stays so, at its place modulo 2 MiB`() throws {
    var plan = ReplayPlan()
    let starts: [UInt64] = [0x40_3000, 0x40_5000, 0x80_0000, 0x7f00_1234_5000, 0x7fff_ff00_0000]
    for start in starts { plan.steps.append(ReplayStep(.map, start..<start + 0x2000)) }
    plan.threads = [0..<starts.count]
    let placement = KernelPlacement(plan)
    let places = try starts.map { try #require(placement.place(of: $0..<$0 + 0x2000)) }
    for (start, place) in zip(starts, places) {
      #expect(place % (2 << 20) == start % (2 << 20))
      #expect(place >= UInt64(KR_WINDOW_START) && place + 0x2000 <= UInt64(KR_WINDOW_END))
    }
    // Less than 16 MiB apart: the distance stays.
    #expect(places[1] - places[0] == 0x2000 && places[2] - places[0] == starts[2] - starts[0])
    #expect(places[3] - places[2] >= 2 << 20 && places[4] - places[3] >= 2 << 20)
    #expect(placement.place(of: 0x40_3000..<0x40_7000) == places[0])
    #expect(placement.place(of: 0x7f00_0000_0000..<0x7f00_0000_1000) == nil)
  }

  @Test func `what is too long has no place, all else has one`() throws {
    var plan = ReplayPlan()
    plan.steps = [
      ReplayStep(.map, 0x10_0000..<0x10_2000),
      ReplayStep(.map, 0x1000_0000_0000..<0x2000_0000_0000),
    ]
    plan.threads = [0..<2]
    let placement = KernelPlacement(plan, window: 1 << 40..<1 << 41)
    #expect(placement.place(of: 0x10_0000..<0x10_1000) != nil)
    #expect(placement.place(of: 0x1000_0000_0000..<0x1000_0000_1000) == nil)
    let steps = UnsafeMutableBufferPointer<kr_step>.allocate(capacity: 2)
    let calls = UnsafeMutableBufferPointer<kr_call>.allocate(capacity: 2)
    let dependencies = UnsafeMutableBufferPointer<kr_dependency>.allocate(capacity: 1)
    defer {
      dependencies.deallocate()
      steps.deallocate()
      calls.deallocate()
    }
    let made = KernelPlan(
      plan, placement, try ReplayFiles(sizes: []), buffer: 0, steps: steps.baseAddress!,
      calls: calls.baseAddress!, dependencies: dependencies.baseAddress!)
    #expect(made.leftOut == [.map: 1])
    #expect(steps.map(\.action) == [UInt8(KR_CALL), UInt8(KR_NONE)])
  }

  @Test func `calls that are the same are written once`() throws {
    var plan = ReplayPlan()
    for turn in 0..<100 {
      let start: UInt64 = 0x10_0000 + UInt64(turn % 2) * 0x1_0000
      plan.steps.append(ReplayStep(.map, start..<start + 0x2000))
      plan.steps.append(ReplayStep(.unmap, start..<start + 0x2000))
    }
    plan.threads = [0..<200]
    let steps = UnsafeMutableBufferPointer<kr_step>.allocate(capacity: 200)
    let calls = UnsafeMutableBufferPointer<kr_call>.allocate(capacity: 200)
    defer {
      steps.deallocate()
      calls.deallocate()
    }
    let dependencies = UnsafeMutablePointer<kr_dependency>.allocate(capacity: 1)
    defer { dependencies.deallocate() }
    let made = KernelPlan(
      plan, KernelPlacement(plan), try ReplayFiles(sizes: []), buffer: 0,
      steps: steps.baseAddress!, calls: calls.baseAddress!, dependencies: dependencies)
    #expect(made.callCount == 4)
    #expect(steps.map(\.what) == (0..<200).map { UInt64($0 % 4) })
    #expect(steps.allSatisfy { $0.first_dependency == KR_NO_DEPENDENCY })
  }

  @Test func `a replay that is given up leaves no helper`() throws {
    let plan = ReplayPlan(try Recording(path: ShippedRecordings.path()))
    let replay = try KernelReplay(plan, ReplayFiles(sizes: plan.fileSizes))
    #expect(throws: KernelReplayError.interrupted) { try replay.run(isCancelled: { true }) }
  }
}
