// SPDX-License-Identifier: Apache-2.0
//
// Builds the recording of one process from its lines, in the order of time.
//
// Guarantee: what leaves here passes `EventValidator`: threads begin before their events, calls of
// a thread do not overlap, times start at 0.
// Mechanism: an exec throws away what came before; enter and exit are paired per thread; a thread
// id may be used again, which a second notice of the same kind tells.

/// One thread in the making.
struct ThreadDraft {
  /// The kinds of notice that a thread was made; each comes at most once a thread.
  struct Notices: OptionSet {
    let rawValue: UInt8
    static let forkRecord = Notices(rawValue: 1)
    static let schedulerFork = Notices(rawValue: 2)
    static let parentReturn = Notices(rawValue: 4)
    static let childReturn = Notices(rawValue: 8)
  }

  var id: Int32
  var parent: Int?
  var begin: UInt64
  var end: UInt64?
  var name: Int32
  /// When its last event was over.
  var last: UInt64
  var notices: Notices = []
  /// The call it is in.
  var pending: TextEvent?
  /// The file of the mapping that its call made.
  var pendingFile: Int?
  /// Locks that it waits for or holds.
  var locks: [LockDraft] = []
  var place = PlaceDraft.unknown
}

struct ProcessBuilder {
  /// Where the process stands.
  enum Phase {
    /// No exec seen yet, or running after one.
    case running
    /// An exec is building the new space.
    case layout
  }

  var text: PerfText
  let processes: TextProcesses
  let process: Int32

  private(set) var phase = Phase.running
  private var hasStarted = false
  /// When the program's exec returned, or its first event.
  private(set) var start: UInt64 = 0
  private(set) var program = ""
  var threads: [ThreadDraft] = []
  private(set) var current: [Int32: Int] = [:]
  var calls: [RecordedCall] = []
  var faults: [RecordedFault] = []
  var acquisitions: [RecordedAcquisition] = []
  /// The space whose lock each acquisition is of, as an index into `spaces`.
  var acquisitionSpaces: [UInt8] = []
  /// Addresses of spaces in the kernel; of the acquisitions of more than 255 spaces the rest is left out.
  private(set) var spaces: [UInt64] = []
  var scheduling: [RecordedScheduling] = []
  private(set) var layout = LayoutModel()
  private(set) var hasDataMappings = false
  private(set) var files: [String] = []
  private var fileIndex: [Int: Int] = [:]
  private(set) var omissions: [String: UInt64] = [:]
  var classes: RecordingInfo.EventClasses = []

  init(_ text: consuming PerfText, _ processes: TextProcesses, _ process: Int32) {
    self.text = text
    self.processes = processes
    self.process = process
  }

  mutating func run() {
    for index in text.events.indices {
      let event = text.events[index]
      text.events.discard(before: index)
      if event.kind.isOfScheduler {
        if event.kind == .woken { woken(event) } else { switched(event) }
        continue
      }
      guard event.thread > 0 else { continue }
      guard processes.process(of: event) == process else {
        switch event.kind {
        case .exit, .userFault, .kernelFault: omit("events of other processes")
        default: break
        }
        continue
      }
      step(event)
    }
    finishLocks()
    for thread in threads where thread.pending != nil { omit("calls that had not returned") }
  }

  mutating func omit(_ what: String, _ count: UInt64 = 1) { omissions[what, default: 0] += count }

  private mutating func step(_ event: TextEvent) {
    switch event.kind {
    case .enter: enter(event)
    case .exit: exit(event)
    case .userFault, .kernelFault: fault(event)
    case .forkRecord: made(event, .forkRecord)
    case .schedulerFork: made(event, .schedulerFork)
    case .threadExit: ended(event)
    case .commExec, .schedulerExec: exec(event)
    case .comm:
      if let thread = current[Int32(truncatingIfNeeded: event.value)] {
        threads[thread].name = Int32(event.payload)
      }
    case .mapping: mapping(event)
    case .lockStart, .lockReturned, .lockReleased: lock(event)
    case .switchedOut, .switchedIn, .woken: break
    }
  }

  // MARK: threads

  /// The draft of the event's thread, made if the text showed no beginning.
  mutating func thread(_ event: TextEvent) -> Int {
    let index = current[event.thread] ?? add(event.thread, at: event.time, parent: nil)
    threads[index].last = max(threads[index].last, event.time)
    if event.name >= 0, !text.names[Int(event.name)].isEmpty { threads[index].name = event.name }
    return index
  }

  mutating func add(_ id: Int32, at time: UInt64, parent: Int?) -> Int {
    threads.append(
      ThreadDraft(id: id, parent: parent, begin: time, end: nil, name: -1, last: time))
    current[id] = threads.count - 1
    return threads.count - 1
  }

  private mutating func made(_ event: TextEvent, _ notice: ThreadDraft.Notices) {
    let child = Int32(truncatingIfNeeded: event.value)
    guard child > 0, processes.has(child, in: process) else { return }
    classes.insert(.threads)
    made(child, by: current[event.thread], at: event.time, notice)
  }

  private mutating func made(
    _ id: Int32, by parent: Int?, at time: UInt64, _ notice: ThreadDraft.Notices
  ) {
    var index = current[id]
    if let old = index, threads[old].notices.contains(notice) { index = nil }
    let thread = index ?? add(id, at: time, parent: parent)
    threads[thread].notices.insert(notice)
    threads[thread].begin = min(threads[thread].begin, time)
    if threads[thread].parent == nil, parent != thread { threads[thread].parent = parent }
  }

  private mutating func ended(_ event: TextEvent) {
    classes.insert(.threads)
    guard let thread = current[Int32(truncatingIfNeeded: event.value)] else { return }
    threads[thread].end = max(threads[thread].end ?? 0, event.time)
    threads[thread].last = max(threads[thread].last, event.time)
  }

  // MARK: exec

  private mutating func exec(_ event: TextEvent) {
    // perf names the exec first, the scheduler a little later, and both are one.
    if event.kind == .commExec || phase != .layout { restart(event) }
    phase = .layout
    program = text.names[event.payload]
  }

  /// The old space is gone, and with it what happened in it.
  private mutating func restart(_ event: TextEvent) {
    let dropped = UInt64(
      calls.count + faults.count + acquisitions.count + scheduling.count)
    if dropped > 0 { omit("events before the last exec", dropped) }
    calls.removeAll()
    faults.removeAll()
    acquisitions.removeAll()
    acquisitionSpaces.removeAll()
    spaces.removeAll()
    scheduling.removeAll()
    threads.removeAll()
    current.removeAll()
    layout = LayoutModel()
    hasDataMappings = false
    hasStarted = false
    files.removeAll()
    fileIndex.removeAll()
  }

  mutating func begin(at time: UInt64) {
    phase = .running
    if !hasStarted {
      hasStarted = true
      start = time
    }
  }

  /// Whether an exec is under way; counts what it does under `what`.
  mutating func isLoading(_ what: String) -> Bool {
    if phase == .layout { omit(what) }
    return phase == .layout
  }

  /// Adds an acquisition of the lock of `space`.
  mutating func add(_ acquisition: RecordedAcquisition, _ space: UInt64) {
    let index = spaces.lastIndex(of: space) ?? spaces.count
    guard index < 255 else { return omit("acquisitions of other spaces' locks") }
    if index == spaces.count { spaces.append(space) }
    acquisitions.append(acquisition)
    acquisitionSpaces.append(UInt8(index))
  }

  private mutating func mapping(_ event: TextEvent) {
    let mapping = text.mappings[event.payload]
    let name = text.names[mapping.name]
    // An exec's mappings, or those of a program that perf was attached to.
    if phase == .layout || event.time == 0 {
      if !mapping.protection.contains(.execute) { hasDataMappings = true }
      layout.apply(
        .map(
          RecordedArea(
            start: mapping.start, end: mapping.start + mapping.length,
            protection: mapping.protection, isShared: mapping.isShared,
            backing: backing(mapping, name))))
      return
    }
    guard let thread = current[event.thread], let pending = threads[thread].pending else {
      omit("mappings made by other calls")
      return
    }
    if pending.call == .mmap, Self.isFile(name) {
      threads[thread].pendingFile = file(mapping.name)
    }
  }

  private mutating func backing(_ mapping: TextMapping, _ name: String) -> RecordedArea.Backing {
    switch name {
    case "[stack]": .stack
    case "[heap]": .heap
    case _ where name.hasPrefix("[v"): .kernel
    case _ where Self.isFile(name): .file(file(mapping.name), offset: mapping.offset)
    default: .anonymous
    }
  }

  private static func isFile(_ name: String) -> Bool {
    !name.isEmpty && name != "//anon" && !name.hasPrefix("[")
  }

  private mutating func file(_ name: Int) -> Int {
    if let index = fileIndex[name] { return index }
    files.append(text.names[name])
    fileIndex[name] = files.count - 1
    return files.count - 1
  }

  // MARK: calls and faults

  private mutating func enter(_ event: TextEvent) {
    classes.insert(.calls)
    begin(at: event.time)
    let thread = thread(event)
    if threads[thread].pending != nil { omit("calls whose return is missing") }
    threads[thread].pending = event
    threads[thread].pendingFile = nil
  }

  private mutating func exit(_ event: TextEvent) {
    classes.insert(.calls)
    if event.call == .execve && event.value == 0 {
      if phase != .layout { restart(event) }
      begin(at: event.time)
      let thread = thread(event)
      threads[thread].pending = nil
      return
    }
    let isClone =
      event.call == .clone || event.call == .clone3 || event.call == .fork
      || event.call == .vfork
    if isClone, event.value == 0, current[event.thread].flatMap({ threads[$0].pending }) == nil {
      // The child's return from the call that made it.
      made(event.thread, by: nil, at: event.time, .childReturn)
      _ = thread(event)
      return
    }
    let thread = thread(event)
    guard let entered = threads[thread].pending else {
      omit("returns whose call is missing")
      return
    }
    threads[thread].pending = nil
    guard entered.call == event.call else {
      omit("calls whose return is missing")
      omit("returns whose call is missing")
      return
    }
    var arguments = CallArguments()
    for number in 0..<entered.call.argumentCount {
      arguments[number] = text.arguments[entered.payload + number]
    }
    if isClone, let child = Int32(exactly: event.value), child > 0,
      processes.has(child, in: process)
    {
      made(child, by: thread, at: event.time, .parentReturn)
    }
    calls.append(
      RecordedCall(
        kind: event.call, thread: thread, enter: entered.time, exit: event.time,
        arguments: arguments, result: Int64(bitPattern: event.value),
        file: event.call == .mmap ? threads[thread].pendingFile : nil))
  }

  private mutating func fault(_ event: TextEvent) {
    classes.insert(event.kind == .userFault ? .userFaults : .kernelFaults)
    guard !isLoading("faults while the program was loaded") else { return }
    begin(at: event.time)
    let thread = thread(event)
    faults.append(
      RecordedFault(
        thread: thread, time: event.time, address: event.value,
        errorCode: UInt32(truncatingIfNeeded: event.payload),
        fromKernel: event.kind == .kernelFault))
  }
}
