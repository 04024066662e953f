// SPDX-License-Identifier: Apache-2.0
//
// The mappings of a running program, as `/proc/PID/maps` lists them.

/// A moment's mappings of a program, in the terms of a text.
struct ProcessMaps: Sendable {
  struct Area: Sendable {
    var start: UInt64
    var end: UInt64
    var offset: UInt64
    var protection: Protection
    var isShared: Bool
    /// As the kernel names it, without folders; empty for anonymous memory.
    var name: String
  }

  /// When they were listed, on the clock of the text.
  var time: UInt64
  var areas: [Area]

  /// The mappings of `process` now; `clock` tells the time in nanoseconds.
  init(process: Int32, clock: () -> UInt64) throws(RecordingError) {
    let path = "/proc/\(process)/maps"
    var input = try InputBytes(path: path)
    var bytes: [UInt8] = []
    while true {
      let piece = try input.read(upTo: 1 << 20)
      bytes += piece
      if piece.count < 1 << 20 { break }
    }
    self.init(time: clock(), text: bytes)
    guard !areas.isEmpty else {
      throw RecordingError(
        .cannotRecord, file: path, at: .file, "the program has no mappings: it has ended",
        advice: "name the id of a program that runs")
    }
  }

  /// Parses `START-END rwxp OFFSET DEVICE INODE NAME` lines; others are passed over.
  init(time: UInt64, text: [UInt8]) {
    self.time = time
    areas = []
    for line in text.split(separator: 0x0a) {
      line.withUnsafeBufferPointer { bytes in
        var cursor = LineCursor(bytes)
        guard let start = cursor.bareHexadecimal(), cursor.skip(0x2d),
          let end = cursor.bareHexadecimal(), cursor.skip(0x20)
        else { return }
        let rights = cursor.string(cursor.token())
        cursor.skipSpaces()
        let offset = cursor.bareHexadecimal() ?? 0
        for _ in 0..<2 {
          cursor.skipSpaces()
          _ = cursor.token()
        }
        cursor.skipSpaces()
        var protection: Protection = []
        if rights.contains("r") { protection.insert(.read) }
        if rights.contains("w") { protection.insert(.write) }
        if rights.contains("x") { protection.insert(.execute) }
        guard start < end, start >= 4096, end <= RecordedArea.spaceEnd else { return }
        areas.append(
          Area(
            start: start, end: end, offset: offset, protection: protection,
            isShared: rights.hasSuffix("s"), name: lastComponent(cursor.rest)))
      }
    }
  }
}

extension PerfText {
  /// Takes `maps` for the mappings at the start: what perf tells of them is left out, since it passes over what cannot
  /// be read, and so is what the program did before.
  mutating func begin(with maps: ProcessMaps, of process: Int32) {
    var initial: [TextEvent] = []
    for area in maps.areas {
      mappings.append(
        TextMapping(
          start: area.start, length: area.end - area.start, offset: area.offset,
          protection: area.protection, isShared: area.isShared, name: intern(area.name)))
      initial.append(
        TextEvent(
          time: 0, line: 0, process: process, thread: process, kind: .mapping, call: .mmap,
          name: -1, payload: mappings.count - 1, value: 0))
    }
    events.replace(first: initial) { event in
      switch event.kind {
      case .forkRecord, .schedulerFork, .comm, .threadExit: true
      default: event.time >= maps.time
      }
    }
  }
}
