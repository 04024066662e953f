// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import RangelandReplay

@Suite struct FormatTests {
  @Test func `numbers of every size come back`() throws {
    for shift in 0..<64 {
      for value: UInt64 in [1 << shift, (1 << shift) - 1, ~(1 << shift)] {
        var writer = ByteWriter()
        writer.varint(value)
        writer.zigzag(Int64(bitPattern: value))
        var cursor = ByteCursor(writer.bytes)
        #expect(try cursor.varint() == value)
        #expect(try cursor.zigzag() == Int64(bitPattern: value))
        #expect(cursor.isAtEnd)
      }
    }
  }

  @Test func `a number of more than 64 bits is refused`() {
    var cursor = ByteCursor([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02])
    #expect(throws: Malformed.self) { try cursor.varint() }
  }

  @Test func `the checksum is CRC-32C`() {
    // The check value of the polynomial's catalogue entry, and RFC 3720 B.4.
    #expect(Checksum.crc32c(Array("123456789".utf8)[...]) == 0xe306_9283)
    #expect(Checksum.crc32c([UInt8](repeating: 0, count: 32)[...]) == 0x8a91_36aa)
    #expect(Checksum.crc32c([UInt8](repeating: 0xff, count: 32)[...]) == 0x62a8_ab43)
  }

  @Test func `a checksum can be continued`() {
    let bytes = (0..<100).map { UInt8($0) }
    for cut in 0...100 {
      let first = Checksum.crc32c(bytes[..<cut])
      #expect(Checksum.crc32c(bytes[cut...], seed: first) == Checksum.crc32c(bytes[...]))
    }
  }

  @Test func `every address has its own code and comes back`() {
    let interesting: [UInt64] = [
      0, 1, 2, 3, 4095, 4096, 1 << 47, 1 << 63, (1 << 63) + 1, .max - 1, .max,
    ]
    for base in interesting {
      var codes: Set<UInt64> = []
      for address in interesting + interesting.map({ base &+ $0 }) + interesting.map({ base &- $0 })
      {
        let code = EventCodingState.code(address, base: base)
        #expect(EventCodingState.address(code, base: base) == address)
        codes.insert(code)
      }
      let distinct = Set(
        interesting + interesting.map { base &+ $0 } + interesting.map { base &- $0 })
      #expect(codes.count == distinct.count)
    }
  }

  @Test func `raw values of call kinds are those of the format`() {
    let names = [
      "mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mlock", "mlock2", "munlock",
      "mlockall", "munlockall", "msync", "mincore", "mseal", "pkey_mprotect", "remap_file_pages",
      "process_madvise", "userfaultfd", "clone", "clone3", "execve", "fork", "vfork",
    ]
    #expect(CallKind.allCases.map(\.name) == names)
    #expect(CallKind.allCases.map(\.rawValue) == Array(1...UInt8(names.count)))
  }

  @Test func `random recordings are read as they were written`() throws {
    var random = SeededGenerator("random recordings")
    let folder = try TemporaryFolder()
    for round in 0..<30 {
      let recording = try randomRecording(events: round * round, using: &random)
      let path = folder.path + "/r.rangeland"
      try recording.write(to: path)
      let read = try Recording(path: path)
      let isSame = read == recording
      #expect(isSame)
      #expect(read.eventCount == recording.eventCount)
    }
    #expect(try folder.contents == ["r.rangeland"])
  }

  @Test func `a recording of many blocks is read as it was written`() throws {
    var random = SeededGenerator("many blocks")
    let recording = try randomRecording(events: 30_000, using: &random)
    let folder = try TemporaryFolder()
    let path = folder.path + "/r.rangeland"
    try recording.write(to: path)
    let size = try #require(FileManager.default.contents(atPath: path)).count
    #expect(size > 3 * RecordingLayout.payloadGoal)
    let isSame = try Recording(path: path) == recording
    #expect(isSame)
  }

  /// What Rangeland wrote before version 2 came: a program `prog` with two calls and a fault.
  static let version1 = """
    iVJOR0wNChoBAAAATXIWIwEAAAAaAAAAAQAAAB32rhEEcHJvZwNvbGQLcGVyZiBzY3JpcHSAIAED
    AAQAAAAvAAAABAAAAEM+g3sAMgAOAAAEcHJvZwFkZAGAQAMiAQCAgPuGl+8/ADDIAcaE+4aX7z8G
    AmRkAIBAAAUAAAAGAAAAAQAAAC66/R4EAQIBAAA=
    """

  @Test func `a recording of version 1 is read`() throws {
    let data = try #require(
      Data(base64Encoded: Self.version1, options: .ignoreUnknownCharacters))
    var reader = try RecordingReader(bytes: [UInt8](data), name: "old")
    #expect(reader.version == 1 && RecordingReader.currentVersion == 3)
    #expect(reader.info.note == "old" && reader.info.machine == nil)
    #expect(reader.info.eventClasses == [.calls, .userFaults])
    var events: [RecordedEvent] = []
    while let event = try reader.next() { events.append(event) }
    #expect(events.map(\.time) == [0, 100, 300, 400])
    let recording = try Recording(bytes: [UInt8](data), name: "old")
    #expect(recording.calls.map(\.kind) == [.mmap, .munmap])
    #expect(recording.acquisitions.isEmpty && recording.scheduling.isEmpty)
    // Written again it is one of version 3, and the same.
    let folder = try TemporaryFolder()
    try recording.write(to: folder.path + "/r")
    #expect(try RecordingReader(path: folder.path + "/r").version == 3)
    let isSame = try Recording(path: folder.path + "/r") == recording
    #expect(isSame)
  }

  @Test func `a recording of version 2 is read, and has no call chains`() throws {
    let events = [
      beginning(0, at: 0), acquisition(at: 1, waited: 3, held: 8, isWrite: true),
      acquisition(at: 20, waited: 1, held: nil, isGranted: false), fault(4096, at: 21),
    ]
    let old = try Recording(bytes: fileBytes(events, version: 2), name: "old")
    #expect(old.acquisitions.map(\.chain) == [nil, nil] && old.chains.isEmpty)
    let isSame = try old == Recording(bytes: fileBytes(events), name: "new")
    #expect(isSame)
    // Some of what ships was written by that version.
    let shipped = try RecordingReader(path: ShippedRecordings.path("java-threads.rangeland"))
    #expect(shipped.version == 2)
  }

  @Test func `a thread has its acquisitions and what the scheduler did`() throws {
    let recording = try Recording(
      bytes: fileBytes([
        beginning(0, at: 0), beginning(1, at: 0, parent: 0),
        acquisition(thread: 1, at: 1, waited: 3, held: 8, isWrite: true, downgradedAfter: 2),
        scheduling(.switchedOut(.uninterruptible), thread: 1, at: 2), acquisition(at: 2, held: nil),
        scheduling(.woken(by: 0), thread: 1, at: 3),
        scheduling(.switchedIn(processor: 6), thread: 1, at: 4),
      ]), name: "r")
    #expect(recording.threads[0].acquisitions == [1] && recording.threads[0].scheduling.isEmpty)
    #expect(recording.threads[1].acquisitions == [0])
    #expect(recording.threads[1].scheduling == [0, 1, 2])
    #expect(recording.acquisitions[0].granted == 4 && recording.acquisitions[0].released == 12)
    #expect(recording.acquisitions[0].downgradedAfter == 2)
    #expect(recording.acquisitions[1].released == nil)
    #expect(
      recording.scheduling.map(\.change) == [
        .switchedOut(.uninterruptible), .woken(by: 0), .switchedIn(processor: 6),
      ])
    #expect(recording.duration == 12)
    let summary = RecordingSummary(recording)
    #expect(summary.locking.writers == 1 && summary.locking.readers == 1)
    #expect(summary.locking.waited == 4 && summary.locking.longestWait == 3)
    #expect(summary.locking.held == 8 && summary.wakeUps == 1 && summary.preemptions == 0)
  }

  @Test func `a recording without events is whole`() throws {
    let recording = try Recording(bytes: fileBytes([]), name: "r")
    #expect(recording.threads.isEmpty && recording.calls.isEmpty && recording.duration == 0)
  }

  @Test func `the reader gives events one by one and then nil for good`() throws {
    let events = [
      beginning(0, at: 5), call(.munmap, CallArguments(8192, 4096), at: 6), fault(8192, at: 8),
      .end(thread: 0, time: 9),
    ]
    var reader = try RecordingReader(bytes: fileBytes(events, files: ["f"]), name: "r")
    #expect(reader.files == ["f"])
    var read: [RecordedEvent] = []
    while let event = try reader.next() { read.append(event) }
    #expect(read == events)
    #expect(try reader.next() == nil)
  }

  @Test func `a thread's steps are its calls and faults in order`() throws {
    let recording = try Recording(
      bytes: fileBytes([
        beginning(0, at: 0), beginning(1, at: 0, parent: 0), fault(8192, thread: 1, at: 1),
        call(.munmap, CallArguments(8192, 4096), thread: 0, at: 2, to: 9),
        call(.munmap, CallArguments(8192, 4096), thread: 1, at: 3), fault(4096, thread: 1, at: 5),
      ]), name: "r")
    #expect(recording.threads[0].steps.map(\.target) == [.call(0)])
    #expect(recording.threads[1].steps.map(\.target) == [.fault(0), .call(1), .fault(1)])
    #expect(recording.threads[1].beginning.parent == 0)
    #expect(recording.duration == 9)
  }
}
