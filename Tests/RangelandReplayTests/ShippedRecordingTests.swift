// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import RangelandReplay

@Suite struct ShippedRecordingTests {
  @Test func `the shipped recording is large enough and small enough`() throws {
    let path = try ShippedRecordings.path()
    #expect(try #require(FileManager.default.contents(atPath: path)).count < 1_000_000)
    let recording = try Recording(path: path)
    let summary = RecordingSummary(recording)
    #expect(recording.info.program == "mariadbd")
    #expect(recording.info.layoutOrigin == .recorded)
    #expect(try #require(summary.threadsAtOnce) >= 4)
    #expect(summary.changingCalls >= 5_000)
    #expect(recording.info.note.contains("mariadb-slap"))
  }

  @Test func `every fault of the shipped recording lies in a mapping that it explains`() throws {
    let summary = RecordingSummary(try Recording(path: ShippedRecordings.path()))
    #expect(summary.userFaults > 10_000)
    #expect(summary.unmappedFaults == 0)
  }

  @Test func `the shipped recording tells nothing of the machine's folders`() throws {
    let recording = try Recording(path: ShippedRecordings.path())
    #expect(!recording.files.isEmpty)
    let frames = recording.chains.frames.flatMap { [$0.function, $0.module] }
    #expect(!frames.isEmpty)
    for text in recording.files + frames + recording.threads.map(\.beginning.name)
      + [recording.info.program]
    {
      #expect(!text.contains("/"))
    }
  }

  @Test func `its totals are those of docs/recording-format.md`() throws {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
    let document = try String(
      contentsOf: folder.appendingPathComponent("docs/recording-format.md"), encoding: .utf8)
    let summary = RecordingSummary(try Recording(path: ShippedRecordings.path()))
    for number in [
      summary.threads, summary.totalCalls, summary.changingCalls,
      summary.userFaults + summary.kernelFaults,
    ] {
      let digits = String(number)
      let grouped =
        digits.count > 3 ? digits.dropLast(3) + "," + digits.suffix(3) : Substring(digits)
      #expect(document.contains(grouped), "\(grouped)")
    }
  }
}
