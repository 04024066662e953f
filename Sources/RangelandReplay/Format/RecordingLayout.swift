// SPDX-License-Identifier: Apache-2.0
//
// The file around the events: prelude, blocks, and the tables at the start.
//
// Guarantee: every byte of a file is covered by a checksum, a block cannot stand in for another
// (its number is part of its checksum), and the end marker tells a whole file from a cut one.
// Format: docs/recording-format.md.

/// Constants of the file format.
enum RecordingLayout {
  /// Not text, not 7-bit clean, and broken by line-end translation.
  static let magic: [UInt8] = [0x89, 0x52, 0x4e, 0x47, 0x4c, 0x0d, 0x0a, 0x1a]
  /// What is written.
  static let version: UInt16 = 3
  /// What is read.
  static let versions: ClosedRange<UInt16> = 1...version
  static let preludeSize = 16
  static let blockHeaderSize = 16
  /// The largest payload of a block: what a reader holds at a time.
  static let payloadLimit = 1 << 20
  /// A block of events is closed when it is this large.
  static let payloadGoal = 1 << 16

  enum BlockKind: UInt8 {
    case info = 1
    case files = 2
    case areas = 3
    case events = 4
    case end = 5
    /// Functions on call chains.
    case frames = 6
    case chains = 7
  }

  /// The first 16 bytes of a file.
  static func prelude(version: UInt16 = version) -> [UInt8] {
    var writer = ByteWriter()
    writer.append(magic)
    writer.littleEndian(version)
    writer.littleEndian(UInt16(0))
    writer.littleEndian(Checksum.crc32c(writer.bytes[...]))
    return writer.bytes
  }

  /// A block: header, then payload. `number` counts the blocks of the file from 0.
  static func block(_ kind: UInt8, number: UInt32, items: UInt32, payload: [UInt8]) -> [UInt8] {
    precondition(payload.count <= payloadLimit, "a block's payload is at most 1 MiB")
    var writer = ByteWriter()
    writer.byte(kind)
    for _ in 0..<3 { writer.byte(0) }
    writer.littleEndian(UInt32(payload.count))
    writer.littleEndian(items)
    writer.littleEndian(checksum(header: writer.bytes[...], number: number, payload: payload[...]))
    writer.append(payload)
    return writer.bytes
  }

  static func checksum(
    header: ArraySlice<UInt8>, number: UInt32, payload: ArraySlice<UInt8>
  ) -> UInt32 {
    var numberBytes = ByteWriter()
    numberBytes.littleEndian(number)
    let first = Checksum.crc32c(numberBytes.bytes[...])
    return Checksum.crc32c(payload, seed: Checksum.crc32c(header, seed: first))
  }
}

/// What the end marker repeats.
struct RecordingTotals: Equatable {
  var events: UInt64 = 0
  var threads: UInt64 = 0
  var calls: UInt64 = 0
  var faults: UInt64 = 0
  var files: UInt64 = 0
  var areas: UInt64 = 0
  var acquisitions: UInt64 = 0
  var scheduling: UInt64 = 0
  /// Functions on call chains, and chains.
  var frames: UInt64 = 0
  var chains: UInt64 = 0

  mutating func count(_ event: RecordedEvent) {
    events += 1
    switch event {
    case .begin: threads += 1
    case .call: calls += 1
    case .fault: faults += 1
    case .acquisition: acquisitions += 1
    case .scheduling: scheduling += 1
    case .end: break
    }
  }
}

extension ByteWriter {
  mutating func info(_ info: RecordingInfo, version: UInt16 = RecordingLayout.version) {
    text(info.program)
    text(info.note)
    text(info.source)
    varint(info.pageSize)
    byte(info.layoutOrigin.rawValue)
    varint(info.eventClasses.rawValue)
    varint(UInt64(info.omissions.count))
    for omission in info.omissions {
      text(omission.name)
      varint(omission.count)
    }
    if version >= 2 { machine(info.machine) }
  }

  mutating func area(_ area: RecordedArea, after end: UInt64) {
    varint((area.start - end) / 4096)
    varint((area.end - area.start) / 4096)
    let backing: UInt8 =
      switch area.backing {
      case .anonymous: 0
      case .file: 1
      case .stack: 2
      case .heap: 3
      case .kernel: 4
      }
    byte(area.protection.rawValue | (area.isShared ? 8 : 0) | backing << 4)
    if case .file(let file, let offset) = area.backing {
      varint(file.map { UInt64($0) + 1 } ?? 0)
      varint(offset)
    }
  }

  mutating func totals(
    _ totals: RecordingTotals, version: UInt16 = RecordingLayout.version
  ) {
    varint(totals.events)
    varint(totals.threads)
    varint(totals.calls)
    varint(totals.faults)
    varint(totals.files)
    varint(totals.areas)
    guard version >= 2 else { return }
    varint(totals.acquisitions)
    varint(totals.scheduling)
    guard version >= 3 else { return }
    varint(totals.frames)
    varint(totals.chains)
  }
}

extension ByteCursor {
  mutating func info(version: UInt16) throws(Malformed) -> RecordingInfo {
    let program = try text("the program's name")
    let note = try text("the note")
    let source = try text("the source")
    let pageSize = try varint()
    guard pageSize == 4096 else {
      throw .corrupted("pages of \(pageSize) bytes, where only 4096 are known")
    }
    let origin = try byte()
    guard let layoutOrigin = RecordingInfo.LayoutOrigin(rawValue: origin) else {
      throw .corrupted("the layout's origin is \(origin)")
    }
    let classes = RecordingInfo.EventClasses(rawValue: try varint())
    guard classes.isSubset(of: .known(toVersion: version)) else {
      throw .corrupted("unknown classes of events (\(classes.rawValue))")
    }
    // Two bytes are the least an omission takes.
    let count = try varint(atMost: remaining / 2, "the number of omissions")
    var omissions: [RecordingInfo.Omission] = []
    for _ in 0..<count {
      omissions.append(.init(name: try text("an omission"), count: try varint()))
    }
    return RecordingInfo(
      program: program, note: note, source: source, pageSize: pageSize,
      layoutOrigin: layoutOrigin, eventClasses: classes, omissions: omissions,
      machine: version == 1 ? nil : try machine())
  }

  mutating func area(after end: UInt64) throws(Malformed) -> RecordedArea {
    // Page numbers this small cannot overflow below.
    let limit = Int(RecordedArea.spaceEnd / 4096)
    let start = end + UInt64(try varint(atMost: limit, "the gap below a mapping")) * 4096
    let length = UInt64(try varint(atMost: limit, "the length of a mapping")) * 4096
    let attributes = try byte()
    let backing: RecordedArea.Backing
    switch attributes >> 4 {
    case 0: backing = .anonymous
    case 1:
      let file = try varint(atMost: Int(Int32.max), "a file number")
      backing = .file(file == 0 ? nil : file - 1, offset: try varint())
    case 2: backing = .stack
    case 3: backing = .heap
    case 4: backing = .kernel
    default: throw .corrupted("a mapping of the unknown kind \(attributes >> 4)")
    }
    guard start <= RecordedArea.spaceEnd else {
      throw .impossible("an initial mapping at \(hex(start)), outside the space")
    }
    return RecordedArea(
      start: start, end: start + length, protection: Protection(rawValue: attributes & 7),
      isShared: attributes & 8 != 0, backing: backing)
  }

  mutating func totals(version: UInt16) throws(Malformed) -> RecordingTotals {
    var totals = RecordingTotals(
      events: try varint(), threads: try varint(), calls: try varint(), faults: try varint(),
      files: try varint(), areas: try varint())
    if version >= 2 {
      totals.acquisitions = try varint()
      totals.scheduling = try varint()
    }
    if version >= 3 {
      totals.frames = try varint()
      totals.chains = try varint()
    }
    return totals
  }
}
