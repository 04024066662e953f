// SPDX-License-Identifier: Apache-2.0
//
// What simulations come to, on recordings small enough to be worked out by hand.

import Rangeland
import Testing

@testable import RangelandReplay

private let calibrated: RecordingInfo = {
  var info = plainInfo
  info.eventClasses = [.calls, .userFaults, .threads, .acquisitions, .switches, .wakeUps]
  return info
}()

private func record(_ info: RecordingInfo, _ events: [RecordedEvent]) throws -> Recording {
  var recording = try Recording(info: info, files: [], initialLayout: [], name: "test")
  for event in events { try recording.append(event) }
  return recording
}

private let low: UInt64 = 0x1000_0000
private let high: UInt64 = 0x7000_0000

/// Two threads that each map 16 pages at 1,000 ns, for 1,000 ns.
private func twoMappings(_ info: RecordingInfo) throws -> Recording {
  func map(_ thread: Int, _ address: UInt64) -> RecordedEvent {
    call(
      .mmap, CallArguments(0, 16 * 4096, 3, 0x22, .max, 0), thread: thread, at: 1000, to: 2000,
      result: Int64(address))
  }
  func held(_ thread: Int) -> RecordedEvent {
    .acquisition(
      RecordedAcquisition(thread: thread, time: 1000, waited: 0, held: 1000, isWrite: true))
  }
  return try record(
    info,
    [beginning(0, at: 0), beginning(1, at: 0), map(0, low), map(1, high)]
      + (info.eventClasses.contains(.acquisitions) ? [held(0), held(1)] : [])
      + [.end(thread: 0, time: 3000), .end(thread: 1, time: 3000)])
}

private func run(
  _ recording: Recording, _ policy: LockPolicy, cores: Int, _ settings: SimulationSettings = .init()
) throws -> SimulationRun {
  try #require(
    Simulation.run(SimulationProgram(recording), policy: policy, cores: cores, settings: settings))
}

@Suite struct SimulatorTests {
  @Test(arguments: LockPolicy.allCases)
  func `Two writers apart wait for one another unless the lock knows ranges`(
    _ policy: LockPolicy
  ) throws {
    let run = try run(twoMappings(calibrated), policy, cores: 2)
    if policy == .ranged {
      #expect(run.nanoseconds == 3000)
      #expect(run.waits.waits == 0)
    } else {
      // The second one polls for 1,000 ns, which is less than it polls at most, but for the semaphore's first guess of
      // 10 polls: then it is queued and polls on.
      #expect(run.nanoseconds == 4000)
      #expect(run.waits.waits == 1)
      #expect(run.waits.falseWaits == 1)
      #expect(run.waits.waitMaxNanoseconds == 1000)
      #expect(run.waits.blocked.map(\.operation) == [.map])
      #expect(run.waits.blocked.map(\.blocker) == [.map])
    }
    // Both run for 3,000 ns, and the second polls.
    #expect(run.busyNanoseconds == 6000 + (policy == .ranged ? 0 : 1000))
  }

  @Test func `On one processor threads take turns`() throws {
    var settings = SimulationSettings()
    settings.slice = 500
    let run = try run(twoMappings(calibrated), .ranged, cores: 1, settings)
    #expect(run.nanoseconds == 6000)
    #expect(run.readyNanoseconds > 0)
    #expect(run.waits.waits == 0)
  }

  @Test func `A thread that waits longer than it polls sleeps, and needs a wake-up`() throws {
    let map = CallArguments(0, 4096, 3, 0x22, .max, 0)
    func event(_ thread: Int, _ address: UInt64, _ from: UInt64, _ to: UInt64) -> [RecordedEvent] {
      [
        call(.mmap, map, thread: thread, at: from, to: to, result: Int64(address)),
        .acquisition(
          RecordedAcquisition(
            thread: thread, time: from, waited: 0, held: to - from, isWrite: true)),
      ]
    }
    let recording = try record(
      calibrated,
      [beginning(0, at: 0), beginning(1, at: 0)] + event(0, low, 1000, 101_000)
        + event(1, high, 2000, 3000))
    var settings = SimulationSettings()
    settings.wake = 7000
    let semaphore = try run(recording, .semaphore, cores: 2, settings)
    #expect(semaphore.waits.waitMaxNanoseconds == 99_000 + 7000)
    let whole = try run(recording, .wholeRange, cores: 2, settings)
    #expect(whole.waits.waitMaxNanoseconds == 99_000 + 7000)
    #expect(try run(recording, .ranged, cores: 2, settings).waits.waits == 0)
  }

  @Test func `Readers poll first, or sleep at once as Linux's`() throws {
    let map = CallArguments(0, 4096, 3, 0x22, .max, 0)
    // A fault asks for the lock when a writer will hold it for 2 us more.
    let recording = try record(
      calibrated,
      [
        beginning(0, at: 0), beginning(1, at: 0),
        call(.mmap, map, at: 1000, to: 4000, result: Int64(high)),
        acquisition(at: 1000, waited: 0, held: 3000, isWrite: true),
        fault(low, thread: 1, at: 2000),
        acquisition(thread: 1, at: 2000, waited: 0, held: 500),
      ])
    var settings = SimulationSettings()
    settings.wake = 7000
    for (sleeps, semaphore) in [(false, 2000), (true, 9000)] as [(Bool, UInt64)] {
      settings.readersSleep = sleeps
      let found = try run(recording, .semaphore, cores: 2, settings).waits
      #expect(found.waits == 1 && found.waitMaxNanoseconds == semaphore, "\(sleeps)")
      // Of a range lock nothing changes: it has no readers' rule of Linux's.
      let whole = try run(recording, .wholeRange, cores: 2, settings).waits
      #expect(whole.waitMaxNanoseconds == 2000)
    }
  }

  @Test func `A fault under the word of its VMA does not wait for a writer elsewhere`() throws {
    var recording = try Recording(
      info: calibrated, files: [],
      initialLayout: [RecordedArea(start: low, end: low + 4 * 4096, protection: [.read])],
      name: "test")
    let events: [RecordedEvent] = [
      beginning(0, at: 0), beginning(1, at: 0),
      call(
        .mmap, CallArguments(0, 4096, 3, 0x22, .max, 0), thread: 0, at: 1000, to: 51_000,
        result: Int64(high)),
      .acquisition(
        RecordedAcquisition(thread: 0, time: 1000, waited: 0, held: 50_000, isWrite: true)),
      fault(low, thread: 1, at: 2000, code: 4),
    ]
    for event in events { try recording.append(event) }
    #expect(try run(recording, .semaphore, cores: 2).waits.falseWaits == 1)
    #expect(try run(recording, .perVMA, cores: 2).waits.waits == 0)
    #expect(try run(recording, .ranged, cores: 2).waits.waits == 0)
  }

  @Test func `A move takes the word of the mapping that it comes from`() throws {
    // The first half moves; a fault in the other half works on none of its pages.
    let half: UInt64 = 4 * 4096
    var recording = try Recording(
      info: calibrated, files: [],
      initialLayout: [RecordedArea(start: low, end: low + 2 * half, protection: [.read])],
      name: "test")
    let events: [RecordedEvent] = [
      beginning(0, at: 0), beginning(1, at: 0),
      call(
        .mremap, CallArguments(low, half, half, 3, high), thread: 0, at: 1000, to: 51_000,
        result: Int64(high)),
      .acquisition(
        RecordedAcquisition(thread: 0, time: 1000, waited: 0, held: 50_000, isWrite: true)),
      fault(low + half, thread: 1, at: 2000, code: 4),
    ]
    for event in events { try recording.append(event) }
    let program = SimulationProgram(recording)
    let step = program.steps.all(0)[0]
    #expect(step.isMove)
    #expect(step.start == low && step.end == low + half)
    #expect(program.moves[Int(step.attributes)].targetRange == high..<(high + half))
    #expect(try run(recording, .perVMA, cores: 2).waits.falseWaits == 1)
    #expect(try run(recording, .ranged, cores: 2).waits.waits == 0)
  }

  @Test func `Blocked time stays, waits for a processor and for the lock go`() throws {
    let recording = try record(
      calibrated,
      [
        beginning(0, at: 0),
        .scheduling(RecordedScheduling(thread: 0, time: 1000, .switchedOut(.interruptible))),
        .scheduling(RecordedScheduling(thread: 0, time: 5000, .woken(by: nil))),
        .scheduling(RecordedScheduling(thread: 0, time: 9000, .switchedIn(processor: 0))),
        call(
          .munmap, CallArguments(low, 4096), at: 10_000, to: 20_000),
        .acquisition(
          RecordedAcquisition(thread: 0, time: 11_000, waited: 6000, held: 2000, isWrite: true)),
        .end(thread: 0, time: 21_000),
      ])
    let program = SimulationProgram(recording)
    #expect(program.calibration == .full)
    #expect(program.blockedNanoseconds == 4000)
    #expect(program.readyNanoseconds == 4000)
    #expect(program.lockWaitNanoseconds == 6000)
    #expect(program.runningNanoseconds == 21_000 - 4000 - 4000 - 6000)
    let run = try run(recording, .semaphore, cores: 2)
    #expect(run.nanoseconds == 21_000 - 4000 - 6000)
    #expect(run.busyNanoseconds == program.runningNanoseconds)
  }

  @Test func `A step waits for the steps of others that it depends on`() throws {
    // Thread 1 touches what thread 0 maps; its own time would let it come first.
    let recording = try record(
      calibrated,
      [
        beginning(0, at: 0), beginning(1, at: 0),
        .scheduling(RecordedScheduling(thread: 1, time: 100, .switchedOut(.preempted))),
        call(
          .mmap, CallArguments(0, 4096, 3, 0x22, .max, 0), at: 1000, to: 2000, result: Int64(low)),
        .scheduling(RecordedScheduling(thread: 1, time: 2500, .switchedIn(processor: 1))),
        fault(low, thread: 1, at: 2600),
      ])
    let run = try run(recording, .ranged, cores: 2)
    #expect(run.orderNanoseconds == 2000 - 200)
    #expect(run.waits.waits == 0)
  }

  @Test func `A stack that grows under a writer leaves no reader behind`() throws {
    let top = low + 64 * 4096
    var recording = try Recording(
      info: calibrated, files: [],
      initialLayout: [
        RecordedArea(start: top, end: top + 4096, protection: [.read, .write], backing: .stack)
      ], name: "test")
    let events: [RecordedEvent] = [
      beginning(0, at: 0), fault(top - 8, at: 1000),
      acquisition(at: 1200, waited: 0, held: 1000, isWrite: true, downgradedAfter: 400),
      call(
        .mmap, CallArguments(0, 4096, 3, 0x22, .max, 0), at: 5000, to: 6000,
        result: Int64(high)),
      acquisition(at: 5100, waited: 0, held: 500, isWrite: true),
    ]
    for event in events { try recording.append(event) }
    for policy in LockPolicy.allCases {
      #expect(try run(recording, policy, cores: 2).waits.waits == 0)
    }
  }

  @Test func `Without scheduler events a recording is uncalibrated and keeps to its processors`()
    throws
  {
    let program = SimulationProgram(try twoMappings(plainInfo))
    #expect(program.calibration == .none)
    #expect(program.mostCores == 2)
    let run = try #require(Simulation.run(program, policy: .semaphore, cores: 2))
    #expect(run.nanoseconds == 4000)
    #expect(SimulationProgram(try twoMappings(calibrated)).mostCores == 64)
  }

  @Test func `The same program gives the same runs, one after the other or two at a time`() throws {
    var random = SeededGenerator("simulation")
    let recording = try RandomProgram.recording(using: &random)
    let program = SimulationProgram(recording)
    let cores = [1, 2]
    let all = try #require(Simulation.runAll(program, cores: cores))
    #expect(all.count == LockPolicy.allCases.count * cores.count)
    for run in all {
      let again = try #require(
        Simulation.run(program, policy: run.policy, cores: run.cores))
      #expect(String(describing: again) == String(describing: run))
    }
  }
}
