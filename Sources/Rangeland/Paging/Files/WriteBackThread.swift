// SPDX-License-Identifier: Apache-2.0
//
// Writing back in the background.
//
// Guarantee: what is written to a mapping of a file reaches the operating system within some seconds, though nobody
//   asks for it. Errors are noted for those who do.
// Mechanism: one thread for each physical memory, started when a file is first mapped; it looks after all objects
//   every 5 seconds, and when it is asked to. It ends with the memory.
// Source: Linux mm/page-writeback.c, `dirty_writeback_centisecs`.

import CRangeland
import Synchronization

final class WriteBackThread: Sendable {
  private let events = EventCount()
  private let isStopped = Atomic<Bool>(false)
  private let isStarted = Atomic<Bool>(false)
  /// Passes that have ended.
  let passes = Atomic<UInt64>(0)

  static var interval: UInt64 { 5_000_000_000 }

  /// What the thread gets.
  private final class Work {
    let writer: WriteBackThread
    weak var memory: PhysicalMemory?

    init(_ writer: WriteBackThread, _ memory: PhysicalMemory) {
      (self.writer, self.memory) = (writer, memory)
    }
  }

  /// Starts the thread, once. Without memory for one nothing is written back in the background.
  func start(_ memory: PhysicalMemory) {
    if isStarted.exchange(true, ordering: .relaxed) { return }
    let work = Unmanaged.passRetained(Work(self, memory))
    let result = rl_start_thread(
      { argument in
        let work = Unmanaged<Work>.fromOpaque(argument!).takeRetainedValue()
        WriteBackThread.run(work)
      }, work.toOpaque())
    if result < 0 { work.release() }
  }

  /// Looks after the objects soon.
  func kick() { events.signal() }

  func stop() {
    isStopped.store(true, ordering: .relaxed)
    events.signal()
  }

  private static func run(_ work: Work) {
    let writer = work.writer
    while !writer.isStopped.load(ordering: .relaxed) {
      let event = writer.events.value
      // The memory may end here, on this thread.
      guard pass(work) else { return }
      writer.passes.add(1, ordering: .releasing)
      writer.events.wait(since: event, until: rl_monotonic_ns() + interval)
    }
  }

  private static func pass(_ work: Work) -> Bool {
    guard let memory = work.memory else { return false }
    memory.writeBackAll()
    return true
  }
}

extension PhysicalMemory {
  /// Writes back what was written to the mappings of files, as the thread in the background does. Returns when the
  /// operating system has it; `FileObject.synchronize` makes it durable.
  public func writeBackAll() {
    let before = LockMap.enter(.writeBack)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    files.forEachObject(context) { object in
      if object.pointee.file.unsafelyUnwrapped.pointee.dirtyPages.load(ordering: .relaxed) > 0 {
        _ = object.writeBack(0..<UInt64.max, context)
      }
    }
  }
}
