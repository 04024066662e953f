// SPDX-License-Identifier: Apache-2.0
//
// The rules that events obey, for the writer, the reader and the model alike.
//
// Guarantee: what passes cannot make a consumer index out of bounds, overflow an address or meet
// an event before its thread.
// Cost: constant per event, 24 bytes a thread.

struct EventValidator: Sendable {
  private struct ThreadState: Sendable {
    /// When its last call was over; `ended` marks it as gone.
    var busyUntil: UInt64
    /// When it had what it asked for last of `mmap_lock`, or had given it back where that is known.
    var lockedUntil: UInt64 = 0
    var ended: Bool
  }

  private(set) var eventCount: UInt64 = 0
  private var threads: [ThreadState] = []
  private var lastTime: UInt64 = 0

  /// Times end at 2^62 ns (146 years): sums of a few never overflow.
  static let timeEnd: UInt64 = 1 << 62

  var threadCount: Int { threads.count }

  /// Throws what is impossible about `event`, which follows those checked before.
  mutating func check(_ event: RecordedEvent, files: Int, chains: Int) throws(Malformed) {
    guard event.time >= lastTime else {
      throw .impossible(
        "out of order: at \(event.time) ns, after an event at \(lastTime) ns")
    }
    guard event.time < Self.timeEnd else { throw .impossible("the time \(event.time) ns") }
    switch event {
    case .begin(let beginning):
      guard beginning.thread == threads.count else {
        throw .impossible(
          "thread \(beginning.thread) begins although thread \(threads.count) is the next")
      }
      if let parent = beginning.parent, !threads.indices.contains(parent) {
        throw .impossible("thread \(beginning.thread)'s parent \(parent) has no beginning")
      }
      guard beginning.id >= 0 else { throw .impossible("the thread id \(beginning.id)") }
      threads.append(ThreadState(busyUntil: beginning.time, ended: false))
    case .call(let call):
      try checkAlive(call.thread)
      guard call.enter >= threads[call.thread].busyUntil else {
        throw .impossible("out of order: thread \(call.thread) is still inside its previous call")
      }
      guard call.exit >= call.enter, call.exit < Self.timeEnd else {
        throw .impossible("a call from \(call.enter) to \(call.exit) ns")
      }
      if let file = call.file, !(0..<files).contains(file) {
        throw .impossible("file \(file) of \(files)")
      }
      try Self.checkRange(of: call)
      threads[call.thread].busyUntil = call.exit
    case .fault(let fault):
      try checkAlive(fault.thread)
      guard fault.address < RecordedArea.spaceEnd else {
        throw .impossible("a fault at \(hex(fault.address)), outside the program's space")
      }
    case .acquisition(let acquisition):
      try checkAlive(acquisition.thread)
      if let chain = acquisition.chain, chain >= chains {
        throw .impossible("call chain \(chain) of \(chains)")
      }
      try check(acquisition)
    case .scheduling(let scheduling):
      try checkAlive(scheduling.thread)
      if case .woken(let waker?) = scheduling.change, !threads.indices.contains(waker) {
        throw .impossible(
          "thread \(waker), which wakes thread \(scheduling.thread), has no beginning")
      }
    case .end(let thread, let time):
      try checkAlive(thread)
      guard time >= threads[thread].busyUntil else {
        throw .impossible("out of order: thread \(thread) ends inside its last call")
      }
      threads[thread].ended = true
    }
    lastTime = event.time
    eventCount += 1
  }

  /// The acquisitions of one thread do not overlap as far as they are known.
  private mutating func check(_ acquisition: RecordedAcquisition) throws(Malformed) {
    let thread = acquisition.thread
    guard acquisition.time >= threads[thread].lockedUntil else {
      throw .impossible("out of order: thread \(thread) still waits for mmap_lock or holds it")
    }
    let hold = acquisition.held ?? acquisition.downgradedAfter ?? 0
    guard acquisition.waited < Self.timeEnd, hold < Self.timeEnd,
      acquisition.time + acquisition.waited + hold < Self.timeEnd
    else {
      throw .impossible("mmap_lock asked for at \(acquisition.time) ns and held beyond all time")
    }
    guard acquisition.isGranted || acquisition.held == nil else {
      throw .impossible("mmap_lock was held although it was not given")
    }
    if let downgraded = acquisition.downgradedAfter {
      guard acquisition.isWrite, acquisition.isGranted, downgraded <= acquisition.held ?? .max
      else {
        throw .impossible("mmap_lock went from a writer's to a reader's when no writer held it")
      }
    }
    threads[thread].lockedUntil = acquisition.granted + (acquisition.held ?? 0)
  }

  private func checkAlive(_ thread: Int) throws(Malformed) {
    guard threads.indices.contains(thread) else {
      throw .impossible("thread \(thread) has no beginning")
    }
    guard !threads[thread].ended else { throw .impossible("thread \(thread) has ended before") }
  }

  /// A call that succeeded worked on pages of the space, and not on page 0.
  private static func checkRange(of call: RecordedCall) throws(Malformed) {
    guard call.errno == nil else { return }
    switch call.kind {
    case .mmap: try checkPages(UInt64(bitPattern: call.result), call.arguments[1], call)
    case .mremap:
      try checkPages(UInt64(bitPattern: call.result), call.arguments[2], call)
      try checkPages(call.arguments[0], call.arguments[1], call, mayBeEmpty: true)
    case .munmap, .mprotect, .pkeyMprotect:
      try checkPages(call.arguments[0], call.arguments[1], call, mayBeEmpty: true)
    case .brk:
      guard UInt64(bitPattern: call.result) < RecordedArea.spaceEnd else {
        throw .impossible("brk returned \(hex(UInt64(bitPattern: call.result)))")
      }
    default: return
    }
  }

  private static func checkPages(
    _ start: UInt64, _ length: UInt64, _ call: RecordedCall, mayBeEmpty: Bool = false
  ) throws(Malformed) {
    if mayBeEmpty && length == 0 { return }
    let (end, overflow) = start.addingReportingOverflow(length)
    guard length != 0, !overflow, end <= RecordedArea.spaceEnd,
      start >= 4096 || call.kind == .munmap
    else {
      throw .impossible(
        "\(call.kind.name) succeeded for \(hex(length)) bytes at \(hex(start)), outside the space")
    }
  }

  /// Throws what is impossible about a layout at the start.
  static func check(_ areas: [RecordedArea], files: Int) throws(Malformed) {
    var end: UInt64 = 4096
    for area in areas {
      guard area.start >= end, area.start < area.end, area.end <= RecordedArea.spaceEnd,
        area.start % 4096 == 0, area.end % 4096 == 0
      else {
        throw .impossible(
          "the initial mapping \(hex(area.start))-\(hex(area.end)) is out of order or of the space")
      }
      if case .file(let file?, _) = area.backing, !(0..<files).contains(file) {
        throw .impossible(
          "the initial mapping at \(hex(area.start)) names file \(file) of \(files)")
      }
      end = area.end
    }
  }
}

/// `value` as people read addresses.
func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
