// SPDX-License-Identifier: Apache-2.0
//
// What a recording says that its program waited, on recordings small enough to be worked out by hand.

import Rangeland
import Testing

@testable import RangelandReplay

private func waits(_ events: [RecordedEvent], classes: RecordingInfo.EventClasses) throws
  -> RecordedWaits?
{
  var info = plainInfo
  info.eventClasses = classes
  var recording = try Recording(info: info, files: [], initialLayout: [], name: "test")
  for event in events { try recording.append(event) }
  return RecordedWaits(recording, SimulationProgram(recording))
}

private let all: RecordingInfo.EventClasses = [
  .calls, .userFaults, .threads, .acquisitions, .switches, .wakeUps,
]
private let low: UInt64 = 0x1000_0000
private let high: UInt64 = 0x7000_0000

/// A call of `thread` that unmaps 4 pages, and its acquisition.
private func unmap(
  _ address: UInt64, thread: Int, at time: UInt64, waited: UInt64, held: UInt64,
  downgradedAfter: UInt64? = nil
) -> [RecordedEvent] {
  [
    call(
      .munmap, CallArguments(address, 4 * 4096), thread: thread, at: time,
      to: time + waited + held),
    acquisition(
      thread: thread, at: time, waited: waited, held: held, isWrite: true,
      downgradedAfter: downgradedAfter),
  ]
}

@Suite struct RecordedWaitsTests {
  @Test func `A wait behind other pages is false, one behind the same pages is not`() throws {
    let found = try #require(
      try waits(
        [beginning(0, at: 0), beginning(1, at: 0), beginning(2, at: 0)]
          + unmap(low, thread: 0, at: 1000, waited: 0, held: 5000)
          + unmap(high, thread: 1, at: 2000, waited: 4000, held: 1000)
          + unmap(low + 4096, thread: 2, at: 2500, waited: 4500, held: 100), classes: all))
    #expect(found.acquisitions == 3)
    #expect(found.waits == 2)
    #expect(found.nanoseconds == 8500)
    #expect(found.falseWaits == 1)
    // The third waits truly until 6,000, and falsely behind the second.
    #expect(found.falseNanoseconds == 4000 + 1000)
    #expect(found.unclassifiedWaits == 0)
    #expect(found.longest == 4500)
    #expect(found.p99 == 4500)
    #expect(found.pairs.map(\.operation) == [.unmap])
    #expect(found.pairs.map(\.blocker) == [.unmap])
    #expect(found.lengths.reduce(0, +) == 2)
  }

  @Test func `Readers do not wait for readers, nor for a writer that went on as one`() throws {
    let events =
      [beginning(0, at: 0), beginning(1, at: 0), beginning(2, at: 0)]
      + unmap(low, thread: 0, at: 1000, waited: 0, held: 5000, downgradedAfter: 500)
      + [
        fault(high, thread: 1, at: 1800),
        acquisition(thread: 1, at: 2000, waited: 50, held: 100),
        fault(high + 4096, thread: 2, at: 2040),
        acquisition(thread: 2, at: 2050, waited: 60, held: 100),
      ]
    let found = try #require(try waits(events, classes: all))
    #expect(found.acquisitions == 3)
    #expect(found.waits == 0)
    #expect(found.nanoseconds == 0)
    #expect(found.share == 0)
  }

  @Test func `A wait of a call that is not recorded is unclassified`() throws {
    let found = try #require(
      try waits(
        [beginning(0, at: 0), beginning(1, at: 0)]
          + unmap(low, thread: 0, at: 1000, waited: 0, held: 5000)
          + [acquisition(thread: 1, at: 2000, waited: 4000, held: 100)], classes: all))
    #expect(found.waits == 1)
    #expect(found.unclassifiedWaits == 1)
    #expect(found.falseWaits == 0)
    #expect(found.falseNanoseconds == 0)
    #expect(found.pairs.map(\.operation) == [nil])
    #expect(found.pairs.map(\.blocker) == [.unmap])
  }

  @Test func `A recording without acquisitions says nothing of waits`() throws {
    #expect(try waits([beginning(0, at: 0)], classes: [.calls, .userFaults]) == nil)
  }
}

@Suite struct VerdictTests {
  private func verdict(waited: UInt64) throws -> Verdict {
    var info = plainInfo
    info.eventClasses = all
    var recording = try Recording(info: info, files: [], initialLayout: [], name: "test")
    let events: [RecordedEvent] =
      [beginning(0, at: 0), beginning(1, at: 0)]
      + unmap(low, thread: 0, at: 1000, waited: 0, held: waited)
      + unmap(high, thread: 1, at: 1000, waited: waited, held: 1)
      + [.end(thread: 0, time: 1_000_000), .end(thread: 1, time: 1_000_000)]
    for event in events { try recording.append(event) }
    let program = SimulationProgram(recording)
    let runs = try #require(Simulation.runAll(program, cores: [2, 8]))
    return Verdict(program, RecordedWaits(recording, program), runs)
  }

  @Test(
    arguments: [
      (1000, Verdict.Weight.nothing), (50_000, .little), (200_000, .noticeable), (800_000, .heavy),
    ] as [(UInt64, Verdict.Weight)])
  func `The verdict weighs waits against run time`(_ waited: UInt64, _ weight: Verdict.Weight)
    throws
  {
    let verdict = try verdict(waited: waited)
    #expect(verdict.weight == weight)
    #expect(verdict.text.contains("1.00 ms"))
    #expect(verdict.text.contains("8 processors"))
    #expect(
      verdict.text.hasPrefix("Locking costs this program nothing to speak of")
        == (weight == .nothing))
  }

  @Test func `Without recorded holds the verdict is a bound`() throws {
    var recording = try Recording(info: plainInfo, files: [], initialLayout: [], name: "test")
    let map = CallArguments(0, 4096, 3, 0x22, .max, 0)
    let events: [RecordedEvent] = [
      beginning(0, at: 0), beginning(1, at: 0),
      call(.mmap, map, thread: 0, at: 1000, to: 900_000, result: Int64(low)),
      call(.mmap, map, thread: 1, at: 1000, to: 900_000, result: Int64(high)),
      .end(thread: 0, time: 1_000_000), .end(thread: 1, time: 1_000_000),
    ]
    for event in events { try recording.append(event) }
    let program = SimulationProgram(recording)
    let runs = try #require(Simulation.runAll(program, cores: [2]))
    let verdict = Verdict(program, nil, runs)
    #expect(verdict.weight == .heavy)
    #expect(verdict.text.hasPrefix("Locking costs this program at most, and likely less, much"))
    #expect(verdict.text.hasSuffix("a bound, not a measure."))
  }

  @Test func `Times are written as people write them`() {
    #expect(Verdict.seconds(0) == "0 s")
    #expect(Verdict.seconds(9999) == "9999 ns")
    #expect(Verdict.seconds(150_000) == "150 us")
    #expect(Verdict.seconds(1_500_000) == "1.50 ms")
    #expect(Verdict.seconds(150_000_000) == "150 ms")
    #expect(Verdict.seconds(12_345_000_000) == "12.35 s")
    #expect(Verdict.percent(0.00001) == "less than 0.01 %")
    #expect(Verdict.percent(0.0123) == "1.23 %")
    #expect(Verdict.percent(0.5) == "50 %")
  }
}
