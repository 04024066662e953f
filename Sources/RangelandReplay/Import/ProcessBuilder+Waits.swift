// SPDX-License-Identifier: Apache-2.0
//
// From the lines about `mmap_lock` and the scheduler to acquisitions and changes of threads.
//
// Mechanism: a hold is put together from its three lines, thread by thread and space by space (a fork holds two);
// a second "returned" inside a writer's hold is its downgrade. perf may tell of one switch twice, by its own record
// and by the kernel's tracepoint: the first counts.

/// A thread's way to and through a hold of one space's lock.
struct LockDraft {
  var space: UInt64
  var time: UInt64
  var granted: UInt64?
  var downgraded: UInt64?
  var isWrite: Bool
  /// The text's number of its call chain.
  var chain: Int?

  /// Asked for, or met, in `event`.
  init(_ event: TextEvent, granted: UInt64? = nil, isWrite: Bool) {
    space = event.value
    time = event.time
    self.granted = granted
    self.isWrite = isWrite
    chain = Self.chain(of: event)
  }

  /// Whether `later` tells of this request once more: the event is recorded twice where call chains are, and the second
  /// time without, so that taking the chain is no part of the wait (`Tracing.events`).
  func isSameRequest(as later: LockDraft) -> Bool {
    granted == nil && isWrite == later.isWrite && (chain == nil) != (later.chain == nil)
  }

  static func chain(of event: TextEvent) -> Int? {
    let number = event.payload >> TextEvent.lockChainShift
    return number == 0 ? nil : number - 1
  }
}

/// What is known of a thread's place.
enum PlaceDraft {
  case unknown, running
  /// It could run, and waits for a processor.
  case ready
  /// It waits for something else.
  case waiting
}

extension ProcessBuilder {
  static let lostRelease = "acquisitions of mmap_lock whose release is missing"

  mutating func lock(_ event: TextEvent) {
    classes.insert(.acquisitions)
    guard !isLoading("waits and switches while the program was loaded") else { return }
    begin(at: event.time)
    let thread = thread(event)
    let isWrite = event.payload & TextEvent.lockOfWriter != 0
    let index = threads[thread].locks.firstIndex { $0.space == event.value }
    switch event.kind {
    case .lockStart:
      let draft = LockDraft(event, isWrite: isWrite)
      if let index, threads[thread].locks[index].isSameRequest(as: draft) {
        threads[thread].locks[index].time = event.time
        threads[thread].locks[index].chain = draft.chain ?? threads[thread].locks[index].chain
        return
      }
      if let index {
        omit(
          threads[thread].locks[index].granted == nil ? "waits without an end" : Self.lostRelease)
        threads[thread].locks.remove(at: index)
      }
      threads[thread].locks.append(draft)
    case .lockReturned:
      returned(event, thread, index, isWrite)
    default:
      guard let index, threads[thread].locks[index].granted != nil else {
        omit("releases of mmap_lock whose acquisition is missing")
        return
      }
      finish(threads[thread].locks.remove(at: index), thread, released: event.time)
    }
  }

  private mutating func returned(
    _ event: TextEvent, _ thread: Int, _ index: Int?, _ isWrite: Bool
  ) {
    let isGranted = event.payload & TextEvent.lockGranted != 0
    guard let index else {
      // A try, of which some kernels tell the result only.
      let draft = LockDraft(event, granted: isGranted ? event.time : nil, isWrite: isWrite)
      if isGranted { threads[thread].locks.append(draft) } else { refuse(draft, thread, event) }
      return
    }
    // The chain may stand below either line.
    if threads[thread].locks[index].chain == nil {
      threads[thread].locks[index].chain = LockDraft.chain(of: event)
    }
    let draft = threads[thread].locks[index]
    switch (draft.granted, isGranted) {
    case (nil, true): threads[thread].locks[index].granted = event.time
    case (nil, false): refuse(threads[thread].locks.remove(at: index), thread, event)
    case (_?, true) where draft.isWrite && !isWrite:
      threads[thread].locks[index].downgraded = event.time
    case (_?, _):
      omit(Self.lostRelease)
      threads[thread].locks.remove(at: index)
      if isGranted {
        threads[thread].locks.append(LockDraft(event, granted: event.time, isWrite: isWrite))
      }
    }
  }

  private mutating func refuse(_ draft: LockDraft, _ thread: Int, _ event: TextEvent) {
    add(
      RecordedAcquisition(
        thread: thread, time: draft.time, waited: event.time - draft.time, held: nil,
        isWrite: draft.isWrite, isGranted: false, chain: draft.chain), draft.space)
  }

  private mutating func finish(_ draft: LockDraft, _ thread: Int, released: UInt64?) {
    guard let granted = draft.granted else { return }
    add(
      RecordedAcquisition(
        thread: thread, time: draft.time, waited: granted - draft.time,
        held: released.map { $0 - granted }, isWrite: draft.isWrite,
        downgradedAfter: draft.downgraded.map { $0 - granted }, chain: draft.chain), draft.space)
  }

  /// Ends what is open when the text ends.
  mutating func finishLocks() {
    for thread in threads.indices {
      for draft in threads[thread].locks {
        if draft.granted == nil { omit("waits without an end") }
        finish(draft, thread, released: nil)
      }
      threads[thread].locks.removeAll()
    }
  }

  // MARK: scheduler

  /// The thread `event.value` left a processor or came to one.
  mutating func switched(_ event: TextEvent) {
    guard let id = Int32(exactly: event.value), id > 0, processes.has(id, in: process) else {
      return
    }
    classes.insert(.switches)
    guard !isLoading("waits and switches while the program was loaded") else { return }
    begin(at: event.time)
    let thread = current[id] ?? add(id, at: event.time, parent: nil)
    threads[thread].last = max(threads[thread].last, event.time)
    let place = threads[thread].place
    if event.kind == .switchedOut {
      guard place == .running || place == .unknown else { return }
      let reason = RecordedScheduling.Reason(rawValue: UInt8(event.payload)) ?? .blocked
      threads[thread].place = reason == .preempted ? .ready : .waiting
      scheduling.append(
        RecordedScheduling(thread: thread, time: event.time, .switchedOut(reason)))
    } else {
      guard place != .running else { return }
      threads[thread].place = .running
      let processor = event.payload >= 0 ? event.payload : nil
      scheduling.append(
        RecordedScheduling(thread: thread, time: event.time, .switchedIn(processor: processor)))
    }
  }

  /// Somebody made the thread `event.value` ready.
  mutating func woken(_ event: TextEvent) {
    guard let id = Int32(exactly: event.value), processes.has(id, in: process) else { return }
    classes.insert(.wakeUps)
    guard phase != .layout, let thread = current[id],
      threads[thread].place == .waiting || threads[thread].place == .unknown
    else { return }
    begin(at: event.time)
    threads[thread].place = .ready
    threads[thread].last = max(threads[thread].last, event.time)
    let waker = processes.process(of: event) == process ? current[event.thread] : nil
    scheduling.append(
      RecordedScheduling(thread: thread, time: event.time, .woken(by: waker)))
  }
}
