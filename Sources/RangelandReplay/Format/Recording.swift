// SPDX-License-Identifier: Apache-2.0
//
// A recording in memory: what a replay, a summary or a simulation works on.
//
// Guarantee: a `Recording` that was read or imported is consistent: every event belongs to a thread
// that has begun and not ended, the calls of one thread do not overlap, and successful calls stay
// inside the space (`EventValidator`).
// Cost: 112 bytes a call, 32 a fault, 40 an acquisition, 24 a change of the scheduler's, 4 more in the thread's list.

/// What a recording says of itself.
public struct RecordingInfo: Equatable, Sendable {
  /// Where the mappings that were there at the start come from.
  public enum LayoutOrigin: UInt8, Sendable {
    /// The kernel listed them.
    case recorded = 0
    /// They were concluded from faults and calls: approximate.
    case inferred = 1
  }

  /// Which classes of events were looked for; an absent class is unknown, not zero.
  public struct EventClasses: OptionSet, Equatable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let calls = EventClasses(rawValue: 1)
    public static let userFaults = EventClasses(rawValue: 2)
    public static let kernelFaults = EventClasses(rawValue: 4)
    public static let threads = EventClasses(rawValue: 8)
    /// Acquisitions of `mmap_lock`.
    public static let acquisitions = EventClasses(rawValue: 16)
    /// When threads left a processor and came to one.
    public static let switches = EventClasses(rawValue: 32)
    /// When threads that waited were made ready.
    public static let wakeUps = EventClasses(rawValue: 64)
    /// Through which functions threads came to ask for `mmap_lock`.
    public static let callChains = EventClasses(rawValue: 128)

    /// What a file of this version of the format may have.
    static func known(toVersion version: UInt16) -> EventClasses {
      var known: EventClasses = [.calls, .userFaults, .kernelFaults, .threads]
      if version >= 2 { known.formUnion([.acquisitions, .switches, .wakeUps]) }
      if version >= 3 { known.insert(.callChains) }
      return known
    }
  }

  /// Something that was counted while the recording was made and is not in it.
  public struct Omission: Equatable, Sendable {
    public var name: String
    public var count: UInt64
    public init(name: String, count: UInt64) {
      self.name = name
      self.count = count
    }
  }

  /// The program's file name, without folders.
  public var program: String
  /// How the recording was made, for people.
  public var note: String
  /// The tool whose output it was made from.
  public var source: String
  /// Bytes in a page.
  public var pageSize: UInt64
  public var layoutOrigin: LayoutOrigin
  public var eventClasses: EventClasses
  public var omissions: [Omission]
  /// Where it was made; nil where the recording does not tell, as those of version 1.
  public var machine: RecordedMachine?

  public init(
    program: String, note: String, source: String, pageSize: UInt64 = 4096,
    layoutOrigin: LayoutOrigin, eventClasses: EventClasses, omissions: [Omission] = [],
    machine: RecordedMachine? = nil
  ) {
    self.program = program
    self.note = note
    self.source = source
    self.pageSize = pageSize
    self.layoutOrigin = layoutOrigin
    self.eventClasses = eventClasses
    self.omissions = omissions
    self.machine = machine
  }
}

/// What a thread did, in its own order.
public struct RecordedThread: Equatable, Sendable {
  /// Points at one entry of `Recording.calls` or `Recording.faults`.
  public struct Step: Equatable, Sendable {
    public enum Target: Equatable, Sendable {
      case call(Int)
      case fault(Int)
    }

    // Bit 31 set: a fault.
    private var word: UInt32

    init(call index: Int) { word = UInt32(index) }
    init(fault index: Int) { word = UInt32(index) | 1 << 31 }

    public var target: Target {
      word >> 31 == 0 ? .call(Int(word)) : .fault(Int(word & ~(1 << 31)))
    }
  }

  /// When it began, its kernel id, its maker and its name.
  public var beginning: RecordedBeginning
  /// When it ended; nil if it still ran when the recording stopped.
  public var end: UInt64?
  /// Its calls and faults, ordered by the time at which they began.
  public var steps: [Step]
  /// Its entries in `Recording.acquisitions`, ordered by time.
  public var acquisitions: [UInt32] = []
  /// Its entries in `Recording.scheduling`, ordered by time.
  public var scheduling: [UInt32] = []
}

/// A whole recording.
public struct Recording: Equatable, Sendable {
  public var info: RecordingInfo
  /// File names without folders; mappings refer to them by index.
  public var files: [String]
  /// The mappings at the start, ascending and disjoint.
  public var initialLayout: [RecordedArea]
  /// Through which functions threads came to ask for `mmap_lock`; acquisitions refer to them by number.
  public private(set) var chains: CallChains
  /// By number.
  public private(set) var threads: [RecordedThread] = []
  /// Ordered by `enter`.
  public private(set) var calls: [RecordedCall] = []
  /// Ordered by time.
  public private(set) var faults: [RecordedFault] = []
  /// Acquisitions of `mmap_lock`, ordered by the time at which they were asked for.
  public private(set) var acquisitions: [RecordedAcquisition] = []
  /// What the scheduler did with threads, ordered by time.
  public private(set) var scheduling: [RecordedScheduling] = []
  /// When the last event was over.
  public private(set) var duration: UInt64 = 0

  private var validator = EventValidator()

  /// A recording without events yet.
  ///
  /// Throws what is impossible in the layout or the texts, in terms of `name`.
  public init(
    info: RecordingInfo, files: [String], initialLayout: [RecordedArea],
    chains: CallChains = CallChains(), name: String
  ) throws(RecordingError) {
    self.info = info
    self.files = files
    self.initialLayout = initialLayout
    self.chains = chains
    do {
      try EventValidator.check(initialLayout, files: files.count)
    } catch {
      throw RecordingError(
        error.kind, file: name, at: .file, error.reason, advice: RecordingError.writeAgain)
    }
  }

  /// When a call or fault of a thread began.
  func beginning(of step: RecordedThread.Step) -> UInt64 {
    switch step.target {
    case .call(let index): calls[index].enter
    case .fault(let index): faults[index].time
    }
  }

  /// Events so far, beginnings and ends of threads included.
  public var eventCount: UInt64 { validator.eventCount }

  /// Takes all events of a recording that has none yet, or says why one cannot have happened: `eventCount` is its
  /// number. The lists become those of the recording, and are not held twice.
  mutating func take(_ lists: EventLists) throws(Malformed) {
    var counts = Counts()
    var events = EventMerge(lists)
    while let event = events.next() { try add(event, &counts) }
    calls = lists.calls
    faults = lists.faults
    acquisitions = lists.acquisitions
    scheduling = lists.scheduling
  }

  /// Adds the next event, or says why it cannot have happened.
  mutating func append(_ event: RecordedEvent) throws(Malformed) {
    var counts = Counts(
      calls: calls.count, faults: faults.count, acquisitions: acquisitions.count,
      scheduling: scheduling.count)
    try add(event, &counts)
    switch event {
    case .call(let call): calls.append(call)
    case .fault(let fault): faults.append(fault)
    case .acquisition(let acquisition): acquisitions.append(acquisition)
    case .scheduling(let change): scheduling.append(change)
    case .begin, .end: break
    }
  }

  /// How many events of each kind there are: the places of the next ones.
  private struct Counts {
    var calls = 0
    var faults = 0
    var acquisitions = 0
    var scheduling = 0
  }

  /// Notes an event, which has its place in the list of its kind, with its thread.
  private mutating func add(_ event: RecordedEvent, _ counts: inout Counts) throws(Malformed) {
    try validator.check(event, files: files.count, chains: chains.count)
    switch event {
    case .begin(let beginning):
      threads.append(RecordedThread(beginning: beginning, end: nil, steps: []))
      duration = max(duration, beginning.time)
    case .call(let call):
      threads[call.thread].steps.append(.init(call: counts.calls))
      counts.calls += 1
      duration = max(duration, call.exit)
    case .fault(let fault):
      threads[fault.thread].steps.append(.init(fault: counts.faults))
      counts.faults += 1
      duration = max(duration, fault.time)
    case .acquisition(let acquisition):
      threads[acquisition.thread].acquisitions.append(UInt32(counts.acquisitions))
      counts.acquisitions += 1
      duration = max(duration, acquisition.released ?? acquisition.granted)
    case .scheduling(let change):
      threads[change.thread].scheduling.append(UInt32(counts.scheduling))
      counts.scheduling += 1
      duration = max(duration, change.time)
    case .end(let thread, let time):
      threads[thread].end = time
      duration = max(duration, time)
    }
  }

  public static func == (left: Recording, right: Recording) -> Bool {
    left.info == right.info && left.files == right.files
      && left.initialLayout == right.initialLayout && left.chains == right.chains
      && left.threads == right.threads
      && left.calls == right.calls && left.faults == right.faults
      && left.acquisitions == right.acquisitions && left.scheduling == right.scheduling
  }
}
