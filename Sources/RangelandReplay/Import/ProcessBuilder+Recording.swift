// SPDX-License-Identifier: Apache-2.0
//
// Puts what was built into the order and the numbers of a recording.

extension ProcessBuilder {
  /// The recording; errors call the text `name`.
  consuming func recording(
    _ name: String, _ options: ImportOptions
  ) throws(RecordingError) -> Recording {
    if text.lost > 0 { omit("events lost by perf", text.lost) }
    if text.faultsOutside > 0 { omit("faults outside the program's space", text.faultsOutside) }
    for (event, count) in text.skipped { omit("unknown event " + event, count) }

    // Of large texts only one copy of what is needed is in memory at a time.
    text.events.removeAll()
    text.arguments = []

    // perf tells of the threads of a program that it was attached to at time 0.
    for index in threads.indices where threads[index].begin == 0 { threads[index].begin = start }
    // Threads are numbered in the order of their beginnings.
    let order = threads.indices.sorted { (threads[$0].begin, $0) < (threads[$1].begin, $1) }
    var numbers = [Int](repeating: 0, count: threads.count)
    for (number, draft) in order.enumerated() { numbers[draft] = number }
    let origin = order.first.map { min(start, threads[$0].begin) } ?? start
    let beginnings = order.enumerated().map { number, draft in
      beginning(number, threads[draft], numbers, origin)
    }

    var calls = self.calls
    self.calls = []
    for index in calls.indices {
      calls[index].thread = numbers[calls[index].thread]
      calls[index].enter -= origin
      calls[index].exit -= origin
    }
    calls.sort { ($0.enter, $0.exit, $0.thread) < ($1.enter, $1.exit, $1.thread) }
    var acquisitions = ownAcquisitions(numbers, origin)
    self.acquisitions = []
    acquisitionSpaces = []
    let chains = ownChains(&acquisitions)
    text.chains = CallChainBuilder()
    let scheduling = orderedScheduling(numbers, origin)
    self.scheduling = []
    var faults = self.faults
    self.faults = []
    for index in faults.indices {
      faults[index].thread = numbers[faults[index].thread]
      faults[index].time -= origin
    }

    let isRecorded = hasDataMappings
    let initial =
      isRecorded ? layout.areas : InitialLayout.inferred(calls: calls, faults: faults)
    let info = RecordingInfo(
      program: program.isEmpty ? (beginnings.first?.name ?? "") : program,
      note: options.note,
      source: text.source, layoutOrigin: isRecorded ? .recorded : .inferred,
      eventClasses: classes,
      omissions: omissions.sorted { $0.key < $1.key }.map { .init(name: $0.key, count: $0.value) },
      machine: options.machine)
    var recording = try Recording(
      info: info, files: files, initialLayout: initial, chains: chains, name: name)
    let ends = order.enumerated().compactMap { number, draft in
      threads[draft].end.map { _ in (thread: number, time: threads[draft].last - origin) }
    }
    try recording.merge(
      EventLists(
        beginnings: beginnings, calls: consume calls, faults: consume faults,
        acquisitions: consume acquisitions, scheduling: consume scheduling, ends: ends), name: name)
    return recording
  }

  /// The acquisitions of the lock that was asked for most: the others are of spaces that a fork or an exec of the
  /// program's threads made.
  private mutating func ownAcquisitions(
    _ numbers: [Int], _ origin: UInt64
  ) -> [RecordedAcquisition] {
    var counts = [Int](repeating: 0, count: 256)
    for space in acquisitionSpaces { counts[Int(space)] += 1 }
    let own = counts.indices.max { counts[$0] < counts[$1] } ?? 0
    let others = acquisitionSpaces.count - counts[own]
    if others > 0 { omit("acquisitions of other spaces' locks", UInt64(others)) }
    var result: [RecordedAcquisition] = []
    result.reserveCapacity(counts[own])
    for (index, space) in acquisitionSpaces.enumerated() where Int(space) == own {
      var acquisition = acquisitions[index]
      acquisition.thread = numbers[acquisition.thread]
      acquisition.time -= origin
      result.append(acquisition)
    }
    result.sort { ($0.time, $0.thread, $0.waited) < ($1.time, $1.thread, $1.waited) }
    return result
  }

  /// The chains of `acquisitions`, which refer to them by their new numbers from now on.
  private mutating func ownChains(_ acquisitions: inout [RecordedAcquisition]) -> CallChains {
    var isUsed = [Bool](repeating: false, count: text.chains.chains.count)
    for acquisition in acquisitions {
      if let chain = acquisition.chain { isUsed[chain] = true }
    }
    guard isUsed.contains(true) else { return CallChains() }
    classes.insert(.callChains)
    let (chains, newNumbers) = CallChainBuilder.keeping(isUsed, of: text.chains.chains)
    for index in acquisitions.indices {
      if let chain = acquisitions[index].chain { acquisitions[index].chain = newNumbers[chain] }
    }
    return chains
  }

  private func orderedScheduling(_ numbers: [Int], _ origin: UInt64) -> [RecordedScheduling] {
    scheduling.map { change in
      let thread = numbers[change.thread]
      guard case .woken(let waker?) = change.change else {
        return RecordedScheduling(thread: thread, time: change.time - origin, change.change)
      }
      return RecordedScheduling(
        thread: thread, time: change.time - origin, .woken(by: numbers[waker]))
    }
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
    do {
      try take(lists)
    } catch {
      throw RecordingError(
        error.kind, file: name, at: .event(eventCount), error.reason,
        advice: "check that the text is one run's, unchanged")
    }
  }
}
