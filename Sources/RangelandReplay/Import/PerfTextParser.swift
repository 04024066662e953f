// SPDX-License-Identifier: Apache-2.0
//
// Parses `perf script` text line by line.
//
// Guarantee: a line is understood, known to be of no interest and counted, or an error that says
// what was expected; nothing is guessed.
// Accepts: lines with or without a command name, a processor, and a process id; times in micro- or
// nanoseconds; with or without PERF_RECORD and scheduler lines; call chains below any of them.
// Cost: one pass over the bytes; no string per field but for functions of call chains.

import Glibc

/// Why a line is not what it should be.
struct LineProblem: Error {
  var expected: String
}

struct PerfTextParser {
  var text = PerfText()
  /// The call chain at hand.
  var chain = ChainDraft()
  /// The name on the line before, to save the look-up for runs of one thread.
  private var lastName: [UInt8] = []
  private var lastNameIndex: Int32 = -1

  /// Ends the parsing and gives its result, sorted by time.
  consuming func finish() -> PerfText {
    finishChain()
    text.sort()
    return text
  }

  struct Head {
    var process: Int32
    var thread: Int32
    var name: Int32
    var time: UInt64
    /// -1 where the text does not tell.
    var processor: Int
  }

  /// Takes one line without its line end.
  mutating func line(_ bytes: UnsafeBufferPointer<UInt8>) throws(LineProblem) {
    text.lines += 1
    var cursor = LineCursor(bytes)
    if frame(&cursor) { return }
    // A blank line ends a chain.
    finishChain()
    cursor.skipSpaces()
    if cursor.isAtEnd || cursor.peek == 0x0d { return }
    let isComment = cursor.peek == 0x23
    let head: Head
    do {
      head = try self.head(&cursor)
    } catch {
      // perf's comments. A thread's name may begin like one.
      if isComment { return }
      throw error
    }
    cursor.skipSpaces()
    if cursor.skip("exceptions:page_fault_user:") {
      try fault(.userFault, head, &cursor)
    } else if cursor.skip("exceptions:page_fault_kernel:") {
      try fault(.kernelFault, head, &cursor)
    } else if cursor.skip("syscalls:sys_enter_") {
      try enter(head, &cursor)
    } else if cursor.skip("syscalls:sys_exit_") {
      try exit(head, &cursor)
    } else if cursor.skip("mmap_lock:mmap_lock_") {
      try lock(head, &cursor)
    } else if cursor.skip("sched:sched_switch:") {
      try schedulerSwitch(head, &cursor)
    } else if cursor.skip("sched:sched_wakeup:") {
      try wakeUp(head, &cursor)
    } else if cursor.skip("PERF_RECORD_") {
      try record(head, &cursor)
    } else if cursor.skip("sched:sched_process_fork:") {
      guard cursor.skip(past: " child_pid="), let child = cursor.identifier(), child > 0 else {
        throw LineProblem(expected: "`comm=... pid=... child_comm=... child_pid=NUMBER`")
      }
      add(.schedulerFork, head, payload: -1, value: UInt64(child))
    } else if cursor.skip("sched:sched_process_exit:") {
      guard cursor.skip(past: " pid="), let thread = cursor.identifier(), thread > 0 else {
        throw LineProblem(expected: "`comm=... pid=NUMBER prio=...`")
      }
      add(.threadExit, head, value: UInt64(thread))
    } else if cursor.skip("sched:sched_process_exec:") {
      guard cursor.skip(past: "filename=") else {
        throw LineProblem(expected: "`filename=... pid=... old_pid=...`")
      }
      let start = cursor.offset
      let end = cursor.skip(past: " pid=") ? cursor.offset - 5 : cursor.count
      add(
        .schedulerExec, head, payload: text.intern(lastComponent(cursor.string(start..<end))))
    } else {
      let name = cursor.string(cursor.token())
      guard name.utf8.count > 1, name.utf8.last == 0x3a else {
        throw LineProblem(expected: "the name of an event and a colon behind the time")
      }
      skip("", name)
    }
  }

  /// `[COMM] [PROCESS/]THREAD [CPU] SECONDS.FRACTION:`: searched from the left for the time, since
  /// a command's name may hold spaces.
  private mutating func head(_ cursor: inout LineCursor) throws(LineProblem) -> Head {
    let lineStart = cursor.offset
    var before = 0..<0
    var last = 0..<0
    while !cursor.isAtEnd {
      let start = cursor.offset
      if !last.isEmpty, let time = cursor.time(), cursor.isAtEnd || cursor.peek == 0x20 {
        let end = cursor.offset
        let isProcessor = cursor.bytes(last).first == 0x5b && cursor.bytes(last).last == 0x5d
        let idRange = isProcessor ? before : last
        var processor = LineCursor(cursor.bytes(last))
        let number = isProcessor && processor.skip(0x5b) ? processor.identifier() ?? -1 : -1
        if let (process, thread) = Self.identifiers(idRange, cursor) {
          cursor.move(to: end)
          let name = lineStart < idRange.lowerBound ? lineStart..<idRange.lowerBound : 0..<0
          return Head(
            process: process, thread: thread, name: intern(cursor.bytes(name)), time: time,
            processor: (0..<1 << 20).contains(number) ? Int(number) : -1)
        }
      }
      cursor.move(to: start)
      before = last
      last = cursor.token()
      cursor.skipSpaces()
    }
    throw LineProblem(
      expected: "`COMMAND PROCESS/THREAD [CPU] SECONDS.FRACTION: EVENT: ...`, as `perf script --ns "
        + "-F comm,pid,tid,cpu,time,event,trace` prints it")
  }

  /// `THREAD` or `PROCESS/THREAD`.
  private static func identifiers(
    _ range: Range<Int>, _ cursor: LineCursor
  ) -> (process: Int32, thread: Int32)? {
    var id = LineCursor(cursor.bytes(range))
    guard let first = id.identifier() else { return nil }
    if id.isAtEnd { return (-1, first) }
    guard id.skip(0x2f), let second = id.identifier(), id.isAtEnd else { return nil }
    return (first, second)
  }

  private mutating func intern(_ bytes: UnsafeBufferPointer<UInt8>) -> Int32 {
    var length = bytes.count
    while length > 0, bytes[length - 1] == 0x20 { length -= 1 }
    let name = UnsafeBufferPointer(rebasing: bytes[..<length])
    if lastNameIndex >= 0, name.elementsEqual(lastName) { return lastNameIndex }
    lastName = Array(name)
    lastNameIndex = Int32(text.intern(String(decoding: name, as: UTF8.self)))
    return lastNameIndex
  }

  /// Counts an event that a recording does not hold; `name` may end in a colon.
  mutating func skip(_ prefix: String, _ name: String) {
    let name = name.last == ":" ? String(name.dropLast()) : name
    text.skipped[prefix + name, default: 0] += 1
  }

  mutating func add(
    _ kind: TextEvent.Kind, _ head: Head, call: CallKind = .mmap, payload: Int = 0,
    value: UInt64 = 0
  ) {
    text.events.append(
      TextEvent(
        time: head.time, line: UInt32(clamping: text.events.count), process: head.process,
        thread: head.thread, kind: kind, call: call, name: head.name, payload: payload,
        value: value))
  }

  // MARK: events

  private mutating func fault(
    _ kind: TextEvent.Kind, _ head: Head, _ cursor: inout LineCursor
  ) throws(LineProblem) {
    guard cursor.skip(past: "address=") else {
      throw LineProblem(expected: "`address=0x... ip=... error_code=0x...`")
    }
    // perf prints an address of the kernel's as a symbol.
    let address = cursor.hexadecimal()
    guard cursor.skip(past: " error_code="), let code = cursor.number(), code <= UInt32.max else {
      throw LineProblem(expected: "`address=0x... ip=... error_code=0x...`")
    }
    guard let address, address < RecordedArea.spaceEnd else {
      text.faultsOutside += 1
      return
    }
    add(kind, head, payload: Int(code), value: address)
  }

  /// The call's name up to its colon, or nil if it is not one that a recording holds.
  private mutating func callKind(
    _ prefix: String, _ cursor: inout LineCursor
  ) throws(LineProblem) -> CallKind? {
    let token = cursor.token()
    guard token.count > 1, cursor.bytes(token).last == 0x3a else {
      throw LineProblem(expected: "the name of a system call and a colon")
    }
    let name = cursor.string(token.lowerBound..<(token.upperBound - 1))
    if let kind = CallKind.byName[name] { return kind }
    text.skipped[prefix + name, default: 0] += 1
    return nil
  }

  private mutating func enter(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    guard let kind = try callKind("syscalls:sys_enter_", &cursor) else { return }
    let first = text.arguments.count
    for (index, coding) in kind.arguments.enumerated() {
      guard cursor.skip(past: ": ") || (index == 0 && cursor.skip(past: " ")),
        let value = cursor.number()
      else {
        text.arguments.removeLast(text.arguments.count - first)
        throw LineProblem(
          expected: "\(kind.arguments.count) arguments `NAME: 0x...` of \(kind.name), "
            + "found \(index)")
      }
      // A descriptor is an int that perf prints as 32 or 64 bits.
      let isSigned = coding == .signed
      text.arguments.append(
        isSigned ? UInt64(bitPattern: Int64(Int32(truncatingIfNeeded: value))) : value)
    }
    add(.enter, head, call: kind, payload: first)
  }

  private mutating func exit(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    guard let kind = try callKind("syscalls:sys_exit_", &cursor) else { return }
    cursor.skipSpaces()
    guard let result = cursor.number() else {
      throw LineProblem(expected: "the result of \(kind.name), `0x...`")
    }
    add(.exit, head, call: kind, value: result)
  }

  // MARK: perf's own records

  private mutating func record(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    if cursor.skip("MMAP2 ") {
      try mapping(head, &cursor)
    } else if cursor.skip("COMM exec: ") {
      let (name, _) = try comm(&cursor)
      add(.commExec, head, payload: name)
    } else if cursor.skip("COMM: ") {
      let (name, thread) = try comm(&cursor)
      if thread > 0 { add(.comm, head, payload: name, value: UInt64(thread)) }
    } else if cursor.skip("FORK(") {
      let (process, thread) = try task(&cursor)
      add(.forkRecord, head, payload: Int(process), value: UInt64(thread))
    } else if cursor.skip("EXIT(") {
      let (_, thread) = try task(&cursor)
      add(.threadExit, head, value: UInt64(thread))
    } else if cursor.skip("SWITCH") {
      try switchRecord(head, &cursor)
    } else if cursor.skip("LOST") {
      guard cursor.skip(past: "lost "), let count = cursor.decimal() else {
        throw LineProblem(expected: "`PERF_RECORD_LOST lost NUMBER`")
      }
      text.lost &+= count
    } else {
      let token = cursor.token()
      let name = cursor.string(token).prefix { $0.isLetter || $0.isNumber || $0 == "_" }
      // What perf says of the kernel's own text is in every file.
      if name != "MMAP" { text.skipped["PERF_RECORD_" + name, default: 0] += 1 }
    }
  }

  /// `NAME:PROCESS/THREAD`; the name may hold colons.
  private mutating func comm(
    _ cursor: inout LineCursor
  ) throws(LineProblem) -> (name: Int, thread: Int32) {
    let rest = cursor.rest
    guard let colon = rest.utf8.lastIndex(of: 0x3a), let slash = rest.utf8.lastIndex(of: 0x2f),
      colon < slash, let thread = Int32(rest[rest.utf8.index(after: slash)...])
    else { throw LineProblem(expected: "`NAME:PROCESS/THREAD`") }
    return (text.intern(String(rest[..<colon])), thread)
  }

  /// `PROCESS:THREAD):(...)`, the first pair.
  private func task(
    _ cursor: inout LineCursor
  ) throws(LineProblem) -> (process: Int32, thread: Int32) {
    guard let process = cursor.identifier(), cursor.skip(0x3a), let thread = cursor.identifier(),
      cursor.skip(0x29), process >= 0, thread >= 0
    else { throw LineProblem(expected: "`(PROCESS:THREAD):(PARENT:PARENT-THREAD)`") }
    return (process, thread)
  }

  /// `PROCESS/THREAD: [START(LENGTH) @ OFFSET DEVICE INODE GENERATION]: rwxp NAME`.
  private mutating func mapping(_ head: Head, _ cursor: inout LineCursor) throws(LineProblem) {
    let expected = "`PROCESS/THREAD: [0xSTART(0xLENGTH) @ OFFSET ...]: rwxp NAME`"
    guard cursor.skip(past: ": ["), let start = cursor.hexadecimal(), cursor.skip(0x28),
      let length = cursor.hexadecimal(), cursor.skip(") @ "), let offset = cursor.number(),
      cursor.skip(past: "]: "), cursor.count - cursor.offset >= 5
    else { throw LineProblem(expected: expected) }
    let rights = cursor.bytes(cursor.token())
    guard rights.count == 4 else { throw LineProblem(expected: expected) }
    cursor.skipSpaces()
    var protection: Protection = []
    if rights[0] == 0x72 { protection.insert(.read) }
    if rights[1] == 0x77 { protection.insert(.write) }
    if rights[2] == 0x78 { protection.insert(.execute) }
    let (end, overflow) = start.addingReportingOverflow(length)
    guard !overflow, length > 0, start % 4096 == 0, length % 4096 == 0 else {
      throw LineProblem(expected: "whole pages in \(expected)")
    }
    // The vsyscall page and the kernel's own text are no part of the program's space.
    guard start >= 4096, end <= RecordedArea.spaceEnd else { return }
    text.mappings.append(
      TextMapping(
        start: start, length: length, offset: offset, protection: protection,
        isShared: rights[3] == 0x73, name: text.intern(lastComponent(cursor.rest))))
    add(.mapping, head, payload: text.mappings.count - 1)
  }
}
