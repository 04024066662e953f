// SPDX-License-Identifier: Apache-2.0

import Rangeland
import Testing

@testable import RangelandReplay

/// What it took to pass the kernel's lock on, and that a simulation takes as long.
@Suite struct PassingTimesTests {
  private let info = RecordingInfo(
    program: "program", note: "", source: "test", layoutOrigin: .recorded,
    eventClasses: [.calls, .acquisitions, .switches])

  /// Two threads of which the second waits for the first `count` times: 500 ns from a release, 9,000 ns where it slept.
  private func recording(polls: Int, sleeps: Int, preempted: Int = 0) throws -> Recording {
    var recording = try Recording(info: info, files: [], initialLayout: [], name: "test")
    try recording.append(beginning(0, at: 0))
    try recording.append(beginning(1, at: 0))
    for turn in 0..<(polls + sleeps + preempted) {
      let start = 1000 + UInt64(turn) * 100_000
      let isPoll = turn < polls
      let gap: UInt64 = isPoll ? 500 : 9000
      var events: [RecordedEvent] = [
        call(
          .mmap, CallArguments(0, 4096, 3, 0x22, .max, 0), thread: 0, at: start, to: start + 5000,
          result: Int64(0x10_0000 + turn * 8192)),
        acquisition(thread: 0, at: start, waited: 0, held: 4000, isWrite: true),
        call(
          .mmap, CallArguments(0, 4096, 3, 0x22, .max, 0), thread: 1, at: start + 3000,
          to: start + 20_000, result: Int64(0x8000_0000 + turn * 8192)),
        acquisition(thread: 1, at: start + 3000, waited: 1000 + gap, held: 2000, isWrite: true),
      ]
      if !isPoll {
        let reason: RecordedScheduling.Reason = turn < polls + sleeps ? .blocked : .preempted
        events += [
          scheduling(.switchedOut(reason), thread: 1, at: start + 3500),
          scheduling(.switchedIn(processor: 0), thread: 1, at: start + 12_000),
        ]
      }
      for event in events { try recording.append(event) }
    }
    return recording
  }

  @Test func `polling and sleeping are told apart, preemption counts for neither`() throws {
    let found = PassingTimes(try recording(polls: 30, sleeps: 25, preempted: 40))
    #expect(found.polling == 500)
    #expect(found.sleeping == 9000)
  }

  @Test func `few waits tell nothing`() throws {
    let found = PassingTimes(try recording(polls: 19, sleeps: 5))
    #expect(found.polling == nil && found.sleeping == nil)
    let settings = SimulationSettings()
    let program = SimulationProgram(try recording(polls: 19, sleeps: 5))
    #expect(settings.handover(program) == 0 && settings.wake(program) == 3000)
  }

  @Test func `a simulated wait takes what was recorded`() throws {
    let program = SimulationProgram(try recording(polls: 30, sleeps: 0))
    func longest(_ policy: LockPolicy, _ settings: SimulationSettings = .init()) throws -> UInt64 {
      let run = Simulation.run(program, policy: policy, cores: 2, settings: settings)
      return try #require(run).waits.waitMaxNanoseconds
    }
    var slow = SimulationSettings()
    slow.handover = 1500
    // 1,000 ns of the hold are left, and some pass until the other one has it.
    for policy in [LockPolicy.semaphore, .wholeRange, .perVMA] {
      #expect(try longest(policy) == 1500, "\(policy)")
      #expect(try longest(policy, slow) == 2500, "\(policy)")
    }
    #expect(try longest(.ranged) == 0)
  }

  @Test func `a release by who passed the waiter counts`() throws {
    var recording = try Recording(info: info, files: [], initialLayout: [], name: "test")
    for thread in 0..<3 { try recording.append(beginning(thread, at: 0)) }
    for turn in 0..<20 {
      let start = UInt64(turn) * 100_000
      for event in [
        acquisition(thread: 0, at: start, waited: 0, held: 4000, isWrite: true),
        // It waits for both, and has the lock 300 ns after the second.
        acquisition(thread: 1, at: start + 1000, waited: 6300, held: 100, isWrite: true),
        acquisition(thread: 2, at: start + 2000, waited: 2300, held: 2700, isWrite: true),
      ] { try recording.append(event) }
    }
    #expect(PassingTimes(recording).polling == 300)
  }
}
