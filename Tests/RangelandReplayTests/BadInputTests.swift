// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import RangelandReplay

/// The error that reading `bytes` ends in, or nil when they are a whole recording.
private func error(_ bytes: [UInt8]) -> RecordingError? {
  do throws(RecordingError) {
    _ = try Recording(bytes: bytes, name: "bad.rangeland")
    return nil
  } catch {
    return error
  }
}

private func smallFile() -> [UInt8] {
  fileBytes(
    [
      beginning(0, at: 0),
      call(
        .mmap, CallArguments(0, 8192, 3, 2, 3, 0), at: 1, to: 3, result: 0x7f00_0000_0000, file: 0),
      beginning(1, at: 4, parent: 0), fault(0x7f00_0000_0123, thread: 1, at: 5),
      acquisition(thread: 1, at: 5, waited: 2, held: 4, chain: 1),
      scheduling(.switchedOut(.uninterruptible), thread: 1, at: 5),
      call(.munmap, CallArguments(0x7f00_0000_0000, 8192), at: 6),
      acquisition(at: 6, waited: 1, held: 9, isWrite: true, downgradedAfter: 3),
      scheduling(.woken(by: 0), thread: 1, at: 6),
      scheduling(.switchedIn(processor: 1), thread: 1, at: 7),
      acquisition(at: 16, waited: 1, held: nil, isGranted: false, chain: 0),
      .end(thread: 1, time: 19),
    ], files: ["libc.so.6"],
    areas: [RecordedArea(start: 0x40_0000, end: 0x41_0000, protection: .read)],
    chains: someChains)
}

@Suite struct BadInputTests {
  @Test func `an empty file is named so`() {
    let failure = error([])
    #expect(failure?.kind == .empty)
    #expect(failure?.description.hasPrefix("bad.rangeland: the file is empty; ") == true)
  }

  @Test(arguments: ["hello, I am text of some length", "\u{7f}ELF0123456789abcdef", "x"])
  func `a foreign file is named so`(_ content: String) {
    #expect(error(Array(content.utf8))?.kind == .foreign)
    #expect(error(Array(content.utf8))?.place == .byte(0))
  }

  @Test func `a newer version asks for an update`() {
    let failure = error(fileBytes([], version: RecordingLayout.version + 1))
    #expect(failure?.kind == .newerVersion)
    #expect(failure?.advice.contains("update") == true)
  }

  @Test func `a file cut at any byte is truncated there`() throws {
    let bytes = smallFile()
    #expect(error(bytes) == nil)
    for length in 1..<bytes.count {
      let failure = try #require(error(Array(bytes[..<length])), "cut at \(length)")
      #expect(failure.kind == .truncated, "cut at \(length): \(failure)")
      #expect(failure.place == .byte(UInt64(length)))
    }
  }

  @Test func `any flipped bit is found`() {
    let bytes = smallFile()
    for index in bytes.indices {
      for bit in 0..<8 {
        var changed = bytes
        changed[index] ^= 1 << UInt8(bit)
        #expect(error(changed) != nil, "byte \(index), bit \(bit)")
      }
    }
  }

  @Test func `bytes after the end are found`() {
    let bytes = smallFile()
    #expect(error(bytes + [0])?.place == .byte(UInt64(bytes.count)))
  }

  @Test func `blocks in another order or left out are found`() {
    let bytes = smallFile()
    var blocks: [ArraySlice<UInt8>] = []
    var offset = RecordingLayout.preludeSize
    while offset < bytes.count {
      let length = 16 + Int(bytes[offset + 4]) + Int(bytes[offset + 5]) << 8
      blocks.append(bytes[offset..<(offset + length)])
      offset += length
    }
    #expect(blocks.count == 7)
    for first in blocks.indices {
      var fewer = blocks
      fewer.remove(at: first)
      #expect(error(Array(bytes[..<16]) + fewer.joined()) != nil)
      for second in blocks.indices where second > first {
        var swapped = blocks
        swapped.swapAt(first, second)
        #expect(error(Array(bytes[..<16]) + swapped.joined()) != nil)
      }
    }
  }

  @Test func `random damage to a real file never passes and never traps`() throws {
    var random = SeededGenerator("damage")
    let folder = try TemporaryFolder()
    let recording = try randomRecording(events: 400, using: &random)
    try recording.write(to: folder.path + "/r")
    let bytes = [UInt8](try #require(FileManager.default.contents(atPath: folder.path + "/r")))
    for _ in 0..<4_000 {
      var changed = bytes
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        changed[Int.random(in: 0..<changed.count, using: &random)] ^=
          1 << UInt8.random(in: 0..<8, using: &random)
      }
      if changed != bytes { #expect(error(changed) != nil) }
    }
  }

  @Test func `damage behind a right checksum is an error or a consistent recording`() throws {
    var random = SeededGenerator("resealed damage")
    let recording = try randomRecording(events: 60, using: &random)
    var events: [RecordedEvent] = []
    recording.forEachEvent { events.append($0) }
    let bytes = fileBytes(
      events, info: recording.info, files: recording.files, areas: recording.initialLayout,
      chains: recording.chains)
    var accepted = 0
    for _ in 0..<10_000 {
      let changed = resealed(bytes, &random)
      do throws(RecordingError) {
        let read = try Recording(bytes: changed, name: "r")
        // What is accepted can be used: its summary walks all of it.
        _ = RecordingSummary(read)
        _ = RecordedWaits(read)
        accepted += 1
      } catch {
        #expect(!error.reason.isEmpty && !error.advice.isEmpty)
      }
    }
    print("resealed damage: \(accepted) of 10000 were recordings still")
  }

  /// `bytes` with damage in payloads, item counts or kinds, and checksums made right again.
  private func resealed(_ bytes: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
    var result = Array(bytes[..<RecordingLayout.preludeSize])
    var offset = RecordingLayout.preludeSize
    var number: UInt32 = 0
    while offset < bytes.count {
      let length = (0..<4).reduce(0) { $0 | Int(bytes[offset + 4 + $1]) << (8 * $1) }
      var items = (0..<4).reduce(UInt32(0)) {
        $0 | UInt32(bytes[offset + 8 + $1]) << (8 * UInt32($1))
      }
      var kind = bytes[offset]
      var payload = Array(bytes[(offset + 16)..<(offset + 16 + length)])
      switch Int.random(in: 0..<8, using: &random) {
      case 0:
        payload[Int.random(in: 0..<length, using: &random)] = UInt8.random(
          in: 0...255, using: &random)
      case 1: payload[Int.random(in: 0..<length, using: &random)] ^= 0x80
      case 2: payload.removeSubrange(Int.random(in: 0..<length, using: &random)...)
      case 3: payload.insert(0xff, at: Int.random(in: 0..<length, using: &random))
      case 4 where Bool.random(using: &random):
        items = items &+ UInt32.random(in: 0...3, using: &random) &- 1
      case 5 where Int.random(in: 0..<9, using: &random) == 0:
        kind = UInt8.random(in: 0...7, using: &random)
      default: break
      }
      result += RecordingLayout.block(kind, number: number, items: items, payload: payload)
      number += 1
      offset += 16 + length
    }
    return result
  }

  @Test func `random bytes behind a right beginning never trap`() {
    var random = SeededGenerator("random bytes")
    for _ in 0..<2_000 {
      let count = Int.random(in: 0..<300, using: &random)
      let noise = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      #expect(error(noise) != nil)
      #expect(error(RecordingLayout.prelude() + noise) != nil)
    }
  }

  @Test func `a length larger than any block is refused before it is read`() {
    var writer = ByteWriter()
    for byte in RecordingLayout.prelude() { writer.byte(byte) }
    writer.littleEndian(UInt32(1))
    writer.littleEndian(UInt32.max)
    writer.littleEndian(UInt32(1))
    writer.littleEndian(UInt32(0))
    #expect(error(writer.bytes)?.kind == .corrupted)
  }

  @Test func `totals that differ are found`() {
    let failure = error(fileBytes([beginning(0, at: 0)], totals: RecordingTotals(events: 7)))
    #expect(failure?.kind == .corrupted)
    #expect(failure?.reason.contains("7 events") == true)
  }

  static let impossible: [(String, [RecordedEvent])] = [
    ("has no beginning", [call(.munmap, CallArguments(4096, 4096), at: 0)]),
    (
      "has no beginning",
      [beginning(0, at: 0), call(.munmap, CallArguments(4096, 4096), thread: 5, at: 1)]
    ),
    (
      "has ended", [beginning(0, at: 0), .end(thread: 0, time: 1), fault(4096, at: 2)]
    ),
    (
      "out of order",
      [
        beginning(0, at: 0), call(.munmap, CallArguments(4096, 4096), at: 1, to: 9),
        call(.munmap, CallArguments(4096, 4096), at: 5),
      ]
    ),
    (
      "out of order",
      [
        beginning(0, at: 0), call(.munmap, CallArguments(4096, 4096), at: 1, to: 9),
        .end(thread: 0, time: 5),
      ]
    ),
    ("parent 0", [beginning(0, at: 0, parent: 0)]),
    ("outside the program's space", [beginning(0, at: 0), fault(RecordedArea.spaceEnd, at: 1)]),
    ("outside the program's space", [beginning(0, at: 0), fault(.max, at: 1)]),
    (
      "outside the space",
      [
        beginning(0, at: 0),
        call(.mmap, CallArguments(0, 4096, 3, 0x22, .max, 0), at: 1, result: 0),
      ]
    ),
    (
      "outside the space",
      [
        beginning(0, at: 0),
        call(
          .mmap, CallArguments(0, 8192, 3, 0x22, .max, 0), at: 1,
          result: Int64(RecordedArea.spaceEnd - 4096)),
      ]
    ),
    (
      "outside the space",
      [beginning(0, at: 0), call(.munmap, CallArguments(.max - 4095, 8192), at: 1)]
    ),
    (
      "outside the space",
      [beginning(0, at: 0), call(.mprotect, CallArguments(0, 4096, 1), at: 1)]
    ),
    (
      "brk returned",
      [
        beginning(0, at: 0),
        call(.brk, CallArguments(0), at: 1, result: Int64(RecordedArea.spaceEnd)),
      ]
    ),
    (
      "file 3",
      [
        beginning(0, at: 0),
        call(.mmap, CallArguments(0, 4096, 3, 2, 3, 0), at: 1, result: 8192, file: 3),
      ]
    ),
  ]

  static let impossibleOfVersion2: [(String, [RecordedEvent])] = [
    ("has no beginning", [beginning(0, at: 0), acquisition(thread: 3, at: 1)]),
    ("still waits", [beginning(0, at: 0), acquisition(at: 1, waited: 5), acquisition(at: 5)]),
    (
      "or holds it",
      [beginning(0, at: 0), acquisition(at: 1, waited: 5, held: 5), acquisition(at: 7)]
    ),
    (
      "beyond all time",
      [beginning(0, at: 0), acquisition(at: 1, waited: EventValidator.timeEnd - 1)]
    ),
    (
      "when no writer held it",
      [
        beginning(0, at: 0),
        acquisition(at: 1, waited: 5, held: 5, isWrite: true, downgradedAfter: 6),
      ]
    ),
    ("which wakes", [beginning(0, at: 0), scheduling(.woken(by: 7), at: 1)]),
    (
      "has ended",
      [beginning(0, at: 0), .end(thread: 0, time: 1), scheduling(.woken(by: nil), at: 2)]
    ),
  ]

  @Test(arguments: impossibleOfVersion2.indices)
  func `an impossible wait or switch is named by its number`(_ index: Int) throws {
    let (reason, events) = Self.impossibleOfVersion2[index]
    let failure = try #require(error(fileBytes(events)))
    #expect(failure.kind == .impossibleEvent)
    #expect(failure.reason.contains(reason), "\(failure)")
    #expect(failure.place == .event(UInt64(events.count - 1)))
  }

  @Test func `a hold that was not given or not a writer's is refused`() throws {
    // The file has no form for these; a model could.
    for made in [
      RecordedAcquisition(
        thread: 0, time: 1, waited: 1, held: 1, isWrite: false, isGranted: false),
      RecordedAcquisition(
        thread: 0, time: 1, waited: 1, held: 2, isWrite: false, downgradedAfter: 1),
    ] {
      var validator = EventValidator()
      try validator.check(beginning(0, at: 0), files: 0, chains: 0)
      #expect(throws: Malformed.self) {
        try validator.check(.acquisition(made), files: 0, chains: 0)
      }
    }
  }

  @Test func `version 1 has no waits`() {
    let failure = error(
      fileBytes([beginning(0, at: 0), acquisition(at: 1)], version: 1))
    #expect(failure?.kind == .corrupted)
    #expect(failure?.reason.contains("unknown kind 52") == true)
  }

  @Test(arguments: impossible.indices)
  func `an impossible event is named by its number`(_ index: Int) throws {
    let (reason, events) = Self.impossible[index]
    let failure = try #require(error(fileBytes(events)))
    #expect(failure.kind == .impossibleEvent)
    #expect(failure.reason.contains(reason), "\(failure)")
    #expect(failure.place == .event(UInt64(events.count - 1)))
  }

  @Test func `a block that begins in the past is out of order`() throws {
    var payload = ByteWriter()
    var state = EventCodingState()
    var names: [String: Int] = [:]
    var bytes = fileBytes([beginning(0, at: 100)])
    bytes.removeLast(16 + 10)
    payload.varint(50)
    state.time = 50
    state.faultAddress = [0]
    payload.event(.end(thread: 0, time: 50), state: &state, names: &names)
    bytes += RecordingLayout.block(4, number: 2, items: 1, payload: payload.bytes)
    let failure = try #require(error(bytes))
    #expect(failure.kind == .impossibleEvent && failure.reason.contains("out of order"))
  }

  static let badAreas: [[RecordedArea]] = [
    [RecordedArea(start: 4096, end: 4096, protection: .read)],
    [RecordedArea(start: 0, end: 4096, protection: .read)],
    [
      RecordedArea(
        start: RecordedArea.spaceEnd, end: RecordedArea.spaceEnd + 4096, protection: .read)
    ],
    [
      RecordedArea(
        start: 4096, end: 8192, protection: .read, backing: .file(4, offset: 0))
    ],
  ]

  @Test(arguments: badAreas)
  func `an impossible initial mapping is refused`(_ areas: [RecordedArea]) {
    #expect(error(fileBytes([], areas: areas))?.kind == .impossibleEvent)
  }

  @Test func `the model refuses overlapping initial mappings`() {
    let area = RecordedArea(start: 4096, end: 12288, protection: .read)
    let next = RecordedArea(start: 8192, end: 16384, protection: .read)
    #expect(throws: RecordingError.self) {
      try Recording(info: plainInfo, files: [], initialLayout: [area, next], name: "r")
    }
  }

  @Test func `the writer refuses what the reader would`() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/r"
    var writer = try RecordingWriter(path: path, info: plainInfo, files: [], initialLayout: [])
    #expect(throws: RecordingError.self) {
      try writer.append(call(.munmap, CallArguments(4096, 4096), at: 0))
    }
    #expect(throws: Never.self) { try writer.append(beginning(0, at: 7)) }
    #expect(throws: RecordingError.self) { try writer.append(beginning(1, at: 6)) }
  }

  @Test func `a writer that is given up leaves the old file and no other`() throws {
    let folder = try TemporaryFolder()
    let path = folder.path + "/r"
    try Data("old".utf8).write(to: URL(fileURLWithPath: path))
    do {
      var writer = try RecordingWriter(path: path, info: plainInfo, files: [], initialLayout: [])
      try writer.append(beginning(0, at: 7))
      #expect(try folder.contents.count == 2)
    }
    #expect(try folder.contents == ["r"])
    #expect(FileManager.default.contents(atPath: path) == Data("old".utf8))
  }

  @Test func `a target that cannot be replaced is an error and leaves nothing`() throws {
    let folder = try TemporaryFolder()
    try FileManager.default.createDirectory(
      atPath: folder.path + "/r", withIntermediateDirectories: false)
    let recording = try Recording(bytes: smallFile(), name: "r")
    let failure = #expect(throws: RecordingError.self) {
      try recording.write(to: folder.path + "/r")
    }
    #expect(failure?.kind == .cannotWrite)
    #expect(try folder.contents == ["r"])
    #expect(throws: RecordingError.self) { try recording.write(to: folder.path + "/no/r") }
  }

}
