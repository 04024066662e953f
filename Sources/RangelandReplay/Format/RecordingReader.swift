// SPDX-License-Identifier: Apache-2.0
//
// Reads a recording, event by event.
//
// Guarantee: whatever the bytes, each call returns the next event of a consistent recording or
// throws; no trap, no allocation beyond one block and what was read before.
// Mechanism: blocks are checked as a whole before anything in them is believed.
// Cost: one block (at most 1 MiB) in memory, and 32 bytes a thread.

import SystemPackage

/// Reads a recording as a stream.
///
/// The tables are there when the initialiser returns; `next()` then gives the events. A file is
/// known to be whole only when `next()` has returned nil.
public struct RecordingReader: ~Copyable {
  /// The path, as errors name it.
  public let file: String
  public private(set) var info: RecordingInfo
  public private(set) var files: [String] = []
  public private(set) var initialLayout: [RecordedArea] = []
  public private(set) var chains = CallChains()

  /// The version of the format that the file has.
  public private(set) var version = RecordingLayout.version

  private var input: InputBytes
  private var blocks: UInt32 = 0
  /// Offset of the block at hand, and its remaining events.
  private var blockOffset: UInt64 = 0
  private var cursor = ByteCursor([])
  private var items: UInt32 = 0
  private var state = EventCodingState()
  private var names: [String] = []
  private var validator = EventValidator()
  private var totals = RecordingTotals()
  private var isFinished = false

  /// The version of the format that recordings are written in.
  public static var currentVersion: UInt16 { RecordingLayout.version }

  /// Opens the recording at `path` and reads its tables.
  public init(path: String) throws(RecordingError) {
    try self.init(InputBytes(path: path), file: path)
  }

  /// Reads a recording from memory; errors call it `name`.
  public init(bytes: [UInt8], name: String) throws(RecordingError) {
    try self.init(InputBytes(bytes: bytes, name: name), file: name)
  }

  private init(_ source: consuming InputBytes, file: String) throws(RecordingError) {
    self.file = file
    input = source
    info = RecordingInfo(
      program: "", note: "", source: "", layoutOrigin: .inferred, eventClasses: [])
    try readPrelude()
    guard try readBlock() == .info else {
      throw corrupted("the first block does not describe the recording")
    }
    do {
      info = try cursor.info(version: version)
    } catch {
      throw inBlock(error)
    }
    try finishBlock()
    try readTables()
  }

  /// The next event, or nil at the end of a whole recording.
  public mutating func next() throws(RecordingError) -> RecordedEvent? {
    while items == 0 {
      if isFinished { return nil }
      try finishBlock()
      switch try readBlock() {
      case .events: try beginEvents()
      case .end: try readEnd()
      default: throw corrupted("a table stands among the events")
      }
    }
    let event: RecordedEvent
    do {
      event = try cursor.event(version: version, state: &state, names: &names)
      try validator.check(event, files: files.count, chains: chains.count)
    } catch {
      throw RecordingError(
        error.kind, file: file, at: .event(totals.events), error.reason,
        advice: RecordingError.writeAgain)
    }
    items -= 1
    totals.count(event)
    return event
  }

  // MARK: blocks

  private mutating func readPrelude() throws(RecordingError) {
    let bytes = try input.read(upTo: RecordingLayout.preludeSize)
    if bytes.isEmpty {
      throw RecordingError(
        .empty, file: file, at: .file, "the file is empty", advice: RecordingError.copyAgain)
    }
    let magic = RecordingLayout.magic
    guard bytes.prefix(magic.count).elementsEqual(magic.prefix(bytes.count)) else {
      throw RecordingError(
        .foreign, file: file, at: .byte(0), "this is not a Rangeland recording",
        advice: "make one from perf's text with `rangeland import`")
    }
    guard bytes.count == RecordingLayout.preludeSize else { throw truncated() }
    let stored = Self.littleEndian32(bytes[12..<16])
    guard stored == Checksum.crc32c(bytes[0..<12]) else {
      throw corrupted("the first 16 bytes do not match their checksum")
    }
    version = UInt16(bytes[8]) | UInt16(bytes[9]) << 8
    guard RecordingLayout.versions.contains(version), bytes[10] == 0, bytes[11] == 0 else {
      throw RecordingError(
        .newerVersion, file: file, at: .byte(8),
        "the recording has format version \(version), this program reads versions "
          + "1 to \(RecordingLayout.version)",
        advice: "update Rangeland or import the text again with this version")
    }
  }

  /// Reads the next block, checks it and points `cursor` at its payload.
  private mutating func readBlock() throws(RecordingError) -> RecordingLayout.BlockKind {
    blockOffset = input.offset
    let header = try input.read(upTo: RecordingLayout.blockHeaderSize)
    guard header.count == RecordingLayout.blockHeaderSize else { throw truncated() }
    let length = Int(Self.littleEndian32(header[4..<8]))
    guard length <= RecordingLayout.payloadLimit else {
      throw corrupted("a block claims \(length) bytes, more than a block can have")
    }
    let payload = try input.read(upTo: length)
    guard payload.count == length else { throw truncated() }
    let sum = RecordingLayout.checksum(
      header: header[0..<12], number: blocks, payload: payload[...])
    guard sum == Self.littleEndian32(header[12..<16]) else {
      throw corrupted("the block does not match its checksum")
    }
    guard let kind = RecordingLayout.BlockKind(rawValue: header[0]),
      header[1..<4].allSatisfy({ $0 == 0 })
    else { throw corrupted("a block of the unknown kind \(header[0])") }
    blocks &+= 1
    cursor = ByteCursor(payload)
    items = Self.littleEndian32(header[8..<12])
    // Each item takes a byte at least.
    guard Int(items) <= length, items > 0 else {
      throw corrupted("a block of \(length) bytes claims \(items) items")
    }
    return kind
  }

  private mutating func finishBlock() throws(RecordingError) {
    guard cursor.isAtEnd else {
      throw corrupted("\(cursor.remaining) bytes are left over at the end of a block")
    }
  }

  /// Reads files and areas up to the first block of events, or the end of a recording without any.
  private mutating func readTables() throws(RecordingError) {
    var end: UInt64 = 0
    while true {
      let kind = try readBlock()
      do {
        switch kind {
        case .files:
          guard initialLayout.isEmpty, chains.frames.isEmpty else {
            throw Malformed.corrupted("files after mappings or functions")
          }
          for _ in 0..<items { files.append(try cursor.text("a file name")) }
        case .areas:
          guard chains.frames.isEmpty else {
            throw Malformed.corrupted("mappings after functions")
          }
          for _ in 0..<items {
            initialLayout.append(try cursor.area(after: end))
            end = initialLayout[initialLayout.count - 1].end
          }
        case .frames, .chains: try readChains(kind)
        case .events, .end:
          try EventValidator.check(initialLayout, files: files.count)
          totals.files = UInt64(files.count)
          totals.areas = UInt64(initialLayout.count)
          totals.frames = UInt64(chains.frames.count)
          totals.chains = UInt64(chains.count)
        case .info: throw Malformed.corrupted("the recording describes itself twice")
        }
      } catch let error as Malformed {
        throw inBlock(error)
      } catch {
        throw corrupted("\(error)")
      }
      switch kind {
      case .events: return try beginEvents()
      case .end: return try readEnd()
      default: try finishBlock()
      }
    }
  }

  /// A block of functions or of chains of them.
  private mutating func readChains(_ kind: RecordingLayout.BlockKind) throws(Malformed) {
    guard version >= 3 else {
      throw .corrupted("a block of version 3 in one of version \(version)")
    }
    if kind == .frames {
      guard chains.isEmpty else { throw .corrupted("functions after call chains") }
      for _ in 0..<items { chains.append(try cursor.frame()) }
    } else {
      for _ in 0..<items {
        chains.append(chain: try cursor.chain(frames: chains.frames.count))
      }
    }
  }

  private mutating func beginEvents() throws(RecordingError) {
    do {
      let time = try cursor.varint()
      guard time >= state.time else {
        throw Malformed.impossible("out of order: a block begins before the last event")
      }
      guard time < EventValidator.timeEnd else { throw Malformed.impossible("the time \(time)") }
      state.time = time
    } catch let error as Malformed {
      throw inBlock(error)
    } catch {
      throw corrupted("\(error)")
    }
  }

  private mutating func readEnd() throws(RecordingError) {
    let stored: RecordingTotals
    do {
      stored = try cursor.totals(version: version)
    } catch {
      throw inBlock(error)
    }
    try finishBlock()
    guard stored == totals else {
      throw corrupted(
        "the end marker counts \(stored.events) events, \(stored.files) files, \(stored.areas) mappings "
          + "and \(stored.chains) call chains, but \(totals.events), \(totals.files), \(totals.areas) and "
          + "\(totals.chains) were there")
    }
    let rest = input.offset
    guard try input.read(upTo: 1).isEmpty else {
      throw RecordingError(
        .corrupted, file: file, at: .byte(rest), "there are bytes after the end of the recording",
        advice: RecordingError.copyAgain)
    }
    items = 0
    isFinished = true
  }

  // MARK: errors

  private static func littleEndian32(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  private func truncated() -> RecordingError {
    RecordingError(
      .truncated, file: file, at: .byte(input.offset), "the recording is cut off here",
      advice: RecordingError.copyAgain)
  }

  private func corrupted(_ reason: String) -> RecordingError {
    RecordingError(
      .corrupted, file: file, at: .byte(blockOffset), reason, advice: RecordingError.copyAgain)
  }

  private func inBlock(_ error: Malformed) -> RecordingError {
    RecordingError(
      error.kind, file: file, at: .byte(blockOffset), error.reason,
      advice: RecordingError.writeAgain)
  }
}

extension Recording {
  /// Reads the whole recording at `path`.
  public init(path: String) throws(RecordingError) {
    try self.init(RecordingReader(path: path))
  }

  /// Reads a whole recording from memory; errors call it `name`.
  public init(bytes: [UInt8], name: String) throws(RecordingError) {
    try self.init(RecordingReader(bytes: bytes, name: name))
  }

  private init(_ source: consuming RecordingReader) throws(RecordingError) {
    var reader = source
    try self.init(
      info: reader.info, files: reader.files, initialLayout: reader.initialLayout,
      chains: reader.chains, name: reader.file)
    while let event = try reader.next() {
      do {
        try append(event)
      } catch {
        throw RecordingError(
          error.kind, file: reader.file, at: .event(eventCount), error.reason,
          advice: RecordingError.writeAgain)
      }
    }
  }
}
