// SPDX-License-Identifier: Apache-2.0
//
// Puts what was built into the order and the numbers of a recording.

extension ProcessBuilder {
  /// The recording; errors call the text `name`.
  consuming func recording(
    _ name: String, _ note: String
  ) throws(RecordingError) -> Recording {
    if text.lost > 0 { omit("events lost by perf", text.lost) }
    if text.faultsOutside > 0 { omit("faults outside the program's space", text.faultsOutside) }
    for (event, count) in text.skipped { omit("unknown event " + event, count) }

    // Threads are numbered in the order of their beginnings.
    let order = threads.indices.sorted { (threads[$0].begin, $0) < (threads[$1].begin, $1) }
    var numbers = [Int](repeating: 0, count: threads.count)
    for (number, draft) in order.enumerated() { numbers[draft] = number }
    let origin = order.first.map { min(start, threads[$0].begin) } ?? start
    let beginnings = order.enumerated().map { number, draft in
      beginning(number, threads[draft], numbers, origin)
    }

    var calls = calls
    for index in calls.indices {
      calls[index].thread = numbers[calls[index].thread]
      calls[index].enter -= origin
      calls[index].exit -= origin
    }
    calls.sort { ($0.enter, $0.exit, $0.thread) < ($1.enter, $1.exit, $1.thread) }
    var faults = faults
    for index in faults.indices {
      faults[index].thread = numbers[faults[index].thread]
      faults[index].time -= origin
    }

    let isRecorded = hasDataMappings
    let initial =
      isRecorded ? layout.areas : InitialLayout.inferred(calls: calls, faults: faults)
    let info = RecordingInfo(
      program: program.isEmpty ? (beginnings.first?.name ?? "") : program, note: note,
      source: "perf script", layoutOrigin: isRecorded ? .recorded : .inferred,
      eventClasses: classes,
      omissions: omissions.sorted { $0.key < $1.key }.map { .init(name: $0.key, count: $0.value) })
    var recording = try Recording(
      info: info, files: files, initialLayout: initial, name: name)
    let ends = order.enumerated().compactMap { number, draft in
      threads[draft].end.map { _ in (thread: number, time: threads[draft].last - origin) }
    }
    try recording.merge(
      EventLists(beginnings: beginnings, calls: calls, faults: faults, ends: ends), name: name)
    return recording
  }

  private func beginning(
    _ number: Int, _ draft: ThreadDraft, _ numbers: [Int], _ origin: UInt64
  ) -> RecordedBeginning {
    let parent = draft.parent.map { numbers[$0] }
    return RecordedBeginning(
      thread: number, time: draft.begin - origin, id: draft.id,
      // A parent whose own beginning the text shows too late is not told.
      parent: parent.flatMap { $0 < number ? $0 : nil },
      name: draft.name >= 0 ? text.names[Int(draft.name)] : "")
  }
}

extension Recording {
  /// Adds all events, each list being ordered by time (the ends are ordered here).
  fileprivate mutating func merge(
    _ unordered: EventLists, name: String
  ) throws(RecordingError) {
    var lists = unordered
    lists.ends.sort { ($0.time, $0.thread) < ($1.time, $1.thread) }
    var events = EventMerge(lists)
    while let event = events.next() {
      do {
        try append(event)
      } catch {
        throw RecordingError(
          error.kind, file: name, at: .event(eventCount), error.reason,
          advice: "check that the text is one run's, unchanged")
      }
    }
  }
}
