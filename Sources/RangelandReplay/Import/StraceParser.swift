// SPDX-License-Identifier: Apache-2.0
//
// Parses the output of `strace -f -ttt -T` line by line.
//
// Guarantee: as for perf's text: a line is understood, known to be of no interest and counted, or an error that says
// what was expected.
// Accepts: lines with or without a thread id (`123 `, `[pid 123] `), with or without the time spent in the call
// (`-T`) and the paths of descriptors (`-y`); calls cut by `<unfinished ...>` and their `resumed` halves, and calls
// that were under way when an interrupt ended strace (`<detached ...>`).
// Limits: microseconds; faults, waits and the scheduler are invisible to strace.
// Source: strace 6.1's output, its manual page.

struct StraceParser {
  private(set) var text: PerfText
  /// Calls that have begun: by thread.
  private var open: [Int32: OpenCall] = [:]
  /// The event of each thread's last return.
  private var lastExit: [Int32: Int] = [:]
  /// The maker of each thread that is a thread of its maker's process.
  private var makers: [Int32: Int32] = [:]

  init() {
    text = PerfText()
    text.source = "strace"
  }

  struct OpenCall {
    var kind: CallKind
    var time: UInt64
    var arguments = CallArguments()
    /// The path of the file that is mapped or run.
    var path: String?
    var makesThread = false
  }

  struct Head {
    var thread: Int32
    var time: UInt64
  }

  static let expectedHead =
    "`[THREAD] SECONDS.MICROSECONDS CALL(...) = RESULT`, as `strace -f -ttt -T -o` prints it"

  /// Whether `line` looks like strace's: a time without a colon stands first or second.
  static func recognises(_ line: UnsafeBufferPointer<UInt8>) -> Bool {
    var cursor = LineCursor(line)
    return cursor.skip("strace: ") || head(&cursor) != nil
  }

  /// Ends the parsing and gives its result, sorted by time.
  consuming func finish() -> PerfText {
    for index in text.events.indices {
      let process = process(of: text.events[index].thread)
      text.events[index].process = process
      if text.events[index].kind == .forkRecord { text.events[index].payload = Int(process) }
    }
    text.sort()
    return text
  }

  private func process(of thread: Int32) -> Int32 {
    var thread = thread
    var steps = 0
    while let maker = makers[thread], steps <= makers.count {
      thread = maker
      steps += 1
    }
    return thread
  }

  /// Takes one line without its line end.
  mutating func line(_ bytes: UnsafeBufferPointer<UInt8>) throws(LineProblem) {
    text.lines += 1
    var cursor = LineCursor(bytes)
    cursor.skipSpaces()
    if cursor.isAtEnd || cursor.peek == 0x23 || cursor.peek == 0x0d { return }
    // What strace says of itself: `strace: Process 123 attached`.
    if cursor.skip("strace: ") { return }
    guard let head = Self.head(&cursor) else { throw LineProblem(expected: Self.expectedHead) }
    settle(head)
    if cursor.skip("--- ") { return }
    if cursor.skip("+++ ") {
      add(.threadExit, head.thread, head.time, value: UInt64(head.thread))
    } else if cursor.skip("<... ") {
      try resumed(head, &cursor)
    } else {
      try begun(head, &cursor)
    }
  }

  private static func head(_ cursor: inout LineCursor) -> Head? {
    var thread: Int32 = 1
    cursor.skipSpaces()
    if cursor.skip("[pid ") {
      cursor.skipSpaces()
      guard let id = cursor.identifier(), id > 0, cursor.skip(0x5d) else { return nil }
      thread = id
    } else if let id = cursor.identifier() {
      if cursor.peek == 0x20, id > 0 { thread = id } else { cursor.move(to: 0) }
    }
    cursor.skipSpaces()
    guard let time = cursor.timeWithoutColon(), cursor.skip(0x20) else { return nil }
    cursor.skipSpaces()
    return Head(thread: thread, time: time)
  }

  /// strace rounds: a return that would lie behind the thread's next line moves there.
  private mutating func settle(_ head: Head) {
    guard let index = lastExit.removeValue(forKey: head.thread) else { return }
    var event = index
    while event >= 0, text.events[event].thread == head.thread,
      text.events[event].time > head.time
    {
      text.events[event].time = head.time
      event -= 1
    }
  }

  // MARK: calls

  private mutating func begun(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    guard let name = cursor.callName() else { throw LineProblem(expected: Self.expectedHead) }
    guard let kind = CallKind.byName[name] else {
      if name != "exit" && name != "exit_group" { text.skipped[name, default: 0] += 1 }
      return
    }
    var call = OpenCall(kind: kind, time: head.time)
    // Of one whose return was not written the enter alone tells the builder.
    open.removeValue(forKey: head.thread)
    let end = try arguments(of: &call, &cursor)
    enter(call, head)
    switch end {
    case .whole: try result(call, head, &cursor)
    case .unfinished: open[head.thread] = call
    case .detached: break
    }
  }

  private mutating func resumed(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    let name = cursor.string(cursor.token())
    guard cursor.skip(" resumed>") else {
      throw LineProblem(expected: "`<... CALL resumed>...) = RESULT`")
    }
    guard let kind = CallKind.byName[name] else { return }
    guard var call = open.removeValue(forKey: head.thread), call.kind == kind else {
      text.skipped["\(name) that was resumed without a beginning", default: 0] += 1
      return
    }
    // What the kernel wrote, and the end of the call.
    var rest = OpenCall(kind: kind, time: call.time)
    switch try arguments(of: &rest, &cursor) {
    case .whole: break
    case .unfinished: throw LineProblem(expected: "the end of \(name), `) = RESULT`")
    case .detached: return
    }
    if rest.makesThread { call.makesThread = true }
    try result(call, head, &cursor)
  }

  private mutating func enter(_ call: OpenCall, _ head: Head) {
    let first = text.arguments.count
    for index in 0..<call.kind.argumentCount { text.arguments.append(call.arguments[index]) }
    add(.enter, head.thread, head.time, call: call.kind, payload: first)
  }

  /// ` = RESULT [ERRNO (text)] [<SECONDS>]`, behind the arguments.
  private mutating func result(
    _ call: OpenCall, _ head: Head, _ cursor: inout LineCursor
  ) throws(LineProblem) {
    let expected = "the result of \(call.kind.name), `= VALUE` or `= -1 ERRNO (text)`"
    cursor.skipSpaces()
    guard cursor.skip(0x3d) else { throw LineProblem(expected: expected) }
    cursor.skipSpaces()
    // The thread was gone before it returned, or begins the call again.
    if cursor.skip(0x3f) { return }
    let value: UInt64
    if cursor.skip("-1 ") {
      let name = cursor.string(cursor.token())
      guard let number = StraceNames.errors[name] else { throw LineProblem(expected: expected) }
      value = UInt64(bitPattern: -number)
    } else if let word = cursor.hexadecimal() ?? cursor.decimal() {
      value = word
    } else {
      throw LineProblem(expected: expected)
    }
    let exit = cursor.durationAtEnd().map { call.time + $0 } ?? max(call.time, head.time)
    if value < UInt64(bitPattern: -4095) { effects(of: call, value, exit, head.thread) }
    add(.exit, head.thread, exit, call: call.kind, value: value)
    lastExit[head.thread] = text.events.count - 1
  }

  /// What perf would tell in lines of its own: the file that was mapped, the thread that was made, the program.
  private mutating func effects(
    of call: OpenCall, _ value: UInt64, _ exit: UInt64, _ thread: Int32
  ) {
    switch call.kind {
    case .mmap:
      guard let path = call.path else { return }
      text.mappings.append(
        TextMapping(
          start: value, length: call.arguments[1], offset: call.arguments[5], protection: [],
          isShared: false, name: text.intern(lastComponent(path))))
      add(.mapping, thread, exit, payload: text.mappings.count - 1)
    case .execve:
      add(
        .schedulerExec, thread, exit, payload: text.intern(lastComponent(call.path ?? "")))
    case .clone, .clone3:
      guard call.makesThread, let child = Int32(exactly: value), child > 0, child != thread else {
        return
      }
      makers[child] = thread
      add(.forkRecord, thread, exit, value: value)
    default: break
    }
  }

  private mutating func add(
    _ kind: TextEvent.Kind, _ thread: Int32, _ time: UInt64, call: CallKind = .mmap,
    payload: Int = 0, value: UInt64 = 0
  ) {
    text.events.append(
      TextEvent(
        time: time, line: UInt32(clamping: text.events.count), process: -1, thread: thread,
        kind: kind, call: call, name: -1, payload: payload, value: value))
  }
}
