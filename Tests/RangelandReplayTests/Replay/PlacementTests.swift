// SPDX-License-Identifier: Apache-2.0

import Rangeland
import Testing

@testable import RangelandReplay

/// Where `.linux` places what a recorded program left to the kernel.
@Suite struct PlacementTests {
  /// Where the made-up program's interpreter lies: what the kernel places goes below.
  private static let base: UInt64 = 0x7f80_0000_0000
  private static let interpreter = RecordedArea(
    start: base - 0x3_0000, end: base, protection: [.read, .execute])
  private static let stack = RecordedArea(
    start: 0x7ffc_0000_0000, end: 0x7ffc_0002_0000, protection: [.read, .write], backing: .stack)

  private func agreement(
    _ events: [RecordedEvent], files: [String] = []
  ) throws -> PlacementAgreement {
    var recording = try Recording(
      info: plainInfo, files: files, initialLayout: [Self.interpreter, Self.stack], name: "test")
    for event in [beginning(0, at: 0), beginning(1, at: 0)] + events { try recording.append(event) }
    let plan = ReplayPlan(recording, placing: true)
    #expect(ReplayPlan(recording).placement == nil)
    let found = try #require(plan.placement)
    #expect(found.problem == nil && found.unfollowed == 0)
    #expect(found.base == Self.base)
    return found
  }

  private func map(
    _ length: UInt64, at time: UInt64, to exit: UInt64? = nil, thread: Int = 0, hint: UInt64 = 0,
    flags: UInt64 = 0x22, file: Int? = nil, answer: UInt64
  ) -> RecordedEvent {
    call(
      .mmap, CallArguments(hint, length, 3, flags, .max, 0), thread: thread, at: time, to: exit,
      result: Int64(answer), file: file)
  }

  private let below = base - 0x3_0000

  @Test func `what the kernel of the day answers is found again`() throws {
    let found = try agreement([
      // Down from the interpreter; a hole that fits is used first.
      map(0x4000, at: 10, answer: below - 0x4000),
      map(0x2000, at: 20, answer: below - 0x6000),
      call(.munmap, CallArguments(below - 0x4000, 0x4000), at: 30),
      map(0x5000, at: 40, answer: below - 0xb000),
      map(0x3000, at: 50, answer: below - 0x3000),
      // Whole huge pages begin on one.
      map(2 << 20, at: 60, answer: (below - 0xb000 - (2 << 20)) & ~((2 << 20) - 1)),
      map(0x1000, at: 70, hint: 0x1234_5678, answer: 0x1234_5000),
      map(0x1000, at: 80, flags: 0x62, answer: 0x4000_0000),
      call(
        .mremap, CallArguments(0x1234_5000, 0x1000, 0x8000, 1), at: 90, result: 0x1234_5000),
    ])
    #expect(found.asked == 8 && found.agreed == 8, "\(found.examples)")
    #expect(found.counts[.anywhere]?.asked == 5 && found.counts[.hint]?.asked == 1)
    #expect(found.counts[.below2GiB]?.asked == 1 && found.counts[.move]?.asked == 1)
    #expect(found.reasons.isEmpty && found.examples.isEmpty)
  }

  @Test func `one address that differs is told, and makes no other differ`() throws {
    let found = try agreement([
      // As if a page that the recording does not have were in between.
      map(0x4000, at: 10, answer: below - 0x5000),
      // A move that the kernel did not make in place, and one of its pages that was.
      call(
        .mremap, CallArguments(below - 0x5000, 0x4000, 0x5000, 1), at: 20,
        result: Int64(below - 0x20_0000)),
      map(0x1000, at: 30, answer: below - 0x1000),
      map(0x1000, at: 40, answer: below - 0x2000),
    ])
    #expect(found.asked == 4 && found.agreed == 2, "\(found.examples)")
    #expect(found.reasons == [.passedGap: 2])
    #expect(found.examples.count == 2 && found.examples[0].contains("the kernel answered"))
  }

  @Test func `of calls under way together the order is not known`() throws {
    let found = try agreement([
      // The first to end was the second to choose.
      map(0x2000, at: 10, to: 30, answer: below - 0x3000),
      map(0x1000, at: 11, to: 40, thread: 1, answer: below - 0x1000),
      map(0x1000, at: 50, answer: below - 0x4000),
    ])
    #expect(found.reasons == [.beside: 1], "\(found.examples)")
    #expect(found.agreed == found.asked - 1)
  }

  @Test func `a file system that aligns to huge pages is recognised`() throws {
    // Linux places 2 MiB more, and goes up to where address and offset are alike.
    let length: UInt64 = 0x21_0000
    let aligned = (below - length - (2 << 20) + (2 << 20) - 1) & ~((2 << 20) - 1)
    let found = try agreement(
      [map(length, at: 10, flags: 2, file: 0, answer: aligned)], files: ["library"])
    #expect(found.agreed == 1 && found.alignedByFileSystem == 1, "\(found.examples)")
  }

  @Test(arguments: ShippedRecordings.programs)
  func `programs that ship were placed by the kernel as by us`(_ name: String) throws {
    let recording = try Recording(path: ShippedRecordings.path(name))
    let found = try #require(ReplayPlan(recording, placing: true).placement)
    #expect(found.problem == nil && found.unfollowed == 0)
    #expect(found.asked >= 99 && found.agreed == found.asked, "\(found.examples)")
  }
}
