// SPDX-License-Identifier: Apache-2.0
//
// Writes a recording, event by event.
//
// Guarantee: the target is either as it was or a whole recording; a failure leaves no other file.
// Mechanism: blocks go to a temporary file beside the target, which is synced and renamed over it.
// Cost: one block (64 KiB) in memory.

import SystemPackage

/// Writes a recording as a stream.
public struct RecordingWriter: ~Copyable {
  private var output: OutputFile
  private var blocks: UInt32 = 0
  private var payload = ByteWriter()
  private var items: UInt32 = 0
  private var state = EventCodingState()
  private var names: [String: Int] = [:]
  private var validator = EventValidator()
  private var totals = RecordingTotals()

  /// Begins a recording that will stand at `path` once `finish()` has returned.
  ///
  /// Throws when the folder cannot be written or a table is impossible.
  public init(
    path: String, info: RecordingInfo, files: [String], initialLayout: [RecordedArea],
    chains: CallChains = CallChains()
  ) throws(RecordingError) {
    try self.init(OutputFile(path: path), info, files, initialLayout, chains)
  }

  private init(
    _ file: consuming OutputFile, _ info: RecordingInfo, _ files: [String],
    _ initialLayout: [RecordedArea], _ chains: CallChains
  ) throws(RecordingError) {
    output = file
    try writeTables(info, files, initialLayout)
    try writeChains(chains)
  }

  private mutating func writeTables(
    _ info: RecordingInfo, _ files: [String], _ initialLayout: [RecordedArea]
  ) throws(RecordingError) {
    let path = output.path
    try output.write(RecordingLayout.prelude())
    payload.info(info)
    guard payload.count <= RecordingLayout.payloadLimit else {
      throw RecordingError(
        .cannotWrite, file: path, at: .file, "the note and names exceed 1 MiB",
        advice: "shorten the note")
    }
    try flush(.info, items: 1)
    for file in files {
      payload.text(file)
      items += 1
      try flushIfLarge(.files)
    }
    try flush(.files, items: items)
    do {
      try EventValidator.check(initialLayout, files: files.count)
    } catch {
      throw RecordingError(
        error.kind, file: path, at: .file, error.reason, advice: RecordingError.writeAgain)
    }
    var end: UInt64 = 0
    for area in initialLayout {
      payload.area(area, after: end)
      end = area.end
      items += 1
      try flushIfLarge(.areas)
    }
    try flush(.areas, items: items)
    totals.files = UInt64(files.count)
    totals.areas = UInt64(initialLayout.count)
  }

  private mutating func writeChains(_ chains: CallChains) throws(RecordingError) {
    for frame in chains.frames {
      payload.frame(frame)
      items += 1
      try flushIfLarge(.frames)
    }
    try flush(.frames, items: items)
    for index in 0..<chains.count {
      payload.chain(chains.frameNumbers(index))
      items += 1
      try flushIfLarge(.chains)
    }
    try flush(.chains, items: items)
    totals.frames = UInt64(chains.frames.count)
    totals.chains = UInt64(chains.count)
  }

  /// Adds the next event; throws when it cannot follow those before it or the disk is full.
  public mutating func append(_ event: RecordedEvent) throws(RecordingError) {
    do {
      try validator.check(event, files: Int(totals.files), chains: Int(totals.chains))
    } catch {
      throw RecordingError(
        error.kind, file: output.path, at: .event(totals.events), error.reason,
        advice: RecordingError.writeAgain)
    }
    if items == 0 {
      payload.varint(event.time)
      state.time = event.time
    }
    payload.event(event, state: &state, names: &names)
    items += 1
    totals.count(event)
    try flushIfLarge(.events)
  }

  /// Writes the end marker, syncs and puts the file in its place.
  public mutating func finish() throws(RecordingError) {
    try flush(.events, items: items)
    payload.totals(totals)
    try flush(.end, items: 1)
    try output.commit()
  }

  private mutating func flushIfLarge(_ kind: RecordingLayout.BlockKind) throws(RecordingError) {
    if payload.count >= RecordingLayout.payloadGoal { try flush(kind, items: items) }
  }

  private mutating func flush(
    _ kind: RecordingLayout.BlockKind, items count: UInt32
  ) throws(RecordingError) {
    if count == 0 { return }
    guard payload.count <= RecordingLayout.payloadLimit else {
      throw RecordingError(
        .cannotWrite, file: output.path, at: .file, "a name exceeds 1 MiB", advice: "shorten it")
    }
    try output.write(
      RecordingLayout.block(
        kind.rawValue, number: blocks, items: count, payload: payload.bytes))
    blocks += 1
    payload.removeAll()
    items = 0
  }
}

extension Recording {
  /// Every event in stream order.
  ///
  /// At equal times beginnings come first and ends last.
  public func forEachEvent<Failure: Error>(
    _ body: (RecordedEvent) throws(Failure) -> Void
  ) throws(Failure) {
    var lists = EventLists()
    lists.ends = threads.indices.filter { threads[$0].end != nil }
      .map { (thread: $0, time: threads[$0].end!) }
      .sorted { ($0.time, $0.thread) < ($1.time, $1.thread) }
    lists.beginnings = threads.map(\.beginning)
    lists.calls = calls
    lists.faults = faults
    lists.acquisitions = acquisitions
    lists.scheduling = scheduling
    var events = EventMerge(lists)
    while let event = events.next() { try body(event) }
  }

  /// Writes the recording to `path`, whole or not at all.
  public func write(to path: String) throws(RecordingError) {
    var writer = try RecordingWriter(
      path: path, info: info, files: files, initialLayout: initialLayout, chains: chains)
    try forEachEvent { (event) throws(RecordingError) in try writer.append(event) }
    try writer.finish()
  }
}
