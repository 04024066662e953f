// SPDX-License-Identifier: Apache-2.0
//
// How far each thread of a replay is, and waiting for it.
//
// Guarantee: who has waited for a step sees all that the step wrote.
// Mechanism: a counter a thread; who waits says so, looks again, and sleeps on the counter.
// Cost: one exchange and one load a step; nothing shared between threads that do not wait for each other.

import CRangeland
import Synchronization

/// One thread's counter: a pair of cache lines of its own.
struct ThreadProgress: ~Copyable {
  /// Steps done. Sequentially consistent with `waiters`: one side sees the other.
  let done = Atomic<UInt32>(0)
  let waiters = Atomic<UInt32>(0)

  static let stride = 128
}

/// The counters of a replay. The owner frees them when nobody runs any more.
struct ReplayProgress: @unchecked Sendable {
  // Sendable: the memory holds only atomics.
  private let memory: UnsafeMutableRawPointer
  private let count: Int

  init(threads: Int) {
    count = threads
    memory = .allocate(byteCount: max(1, threads) * ThreadProgress.stride, alignment: 128)
    for thread in 0..<threads { self[thread].initialize(to: ThreadProgress()) }
  }

  func destroy() {
    for thread in 0..<count { self[thread].deinitialize(count: 1) }
    memory.deallocate()
  }

  private subscript(thread: Int) -> UnsafeMutablePointer<ThreadProgress> {
    (memory + thread &* ThreadProgress.stride).assumingMemoryBound(to: ThreadProgress.self)
  }

  /// The calling thread, which runs recorded thread `thread`, has done `steps` steps.
  @inline(__always)
  func advance(_ thread: Int, to steps: Int) {
    let progress = self[thread]
    progress.pointee.done.store(
      UInt32(truncatingIfNeeded: steps), ordering: .sequentiallyConsistent)
    if progress.pointee.waiters.load(ordering: .sequentiallyConsistent) != 0 { wake(progress) }
  }

  /// Whether `thread` has done `steps` steps.
  @inline(__always)
  func has(_ thread: Int, done steps: Int) -> Bool {
    self[thread].pointee.done.load(ordering: .acquiring) >= steps
  }

  /// Polls before the first sleep, about 2 microseconds.
  private static let polls = 100

  /// Waits until `thread` has done `steps` steps.
  @inline(never)
  func wait(for thread: Int, steps: Int) {
    let progress = self[thread]
    for _ in 0..<Self.polls {
      if progress.pointee.done.load(ordering: .acquiring) >= steps { return }
      rl_cpu_relax()
    }
    progress.pointee.waiters.add(1, ordering: .sequentiallyConsistent)
    while true {
      let done = progress.pointee.done.load(ordering: .sequentiallyConsistent)
      if done >= steps { break }
      _ = rl_futex_wait(Self.word(progress), done, .max)
    }
    progress.pointee.waiters.subtract(1, ordering: .relaxed)
  }

  @inline(never)
  private func wake(_ progress: UnsafeMutablePointer<ThreadProgress>) {
    _ = rl_futex_wake(Self.word(progress), Int32.max)
  }

  /// The futex word: `done` is the first field.
  private static func word(
    _ progress: UnsafeMutablePointer<ThreadProgress>
  ) -> UnsafeMutablePointer<UInt32> {
    UnsafeMutableRawPointer(progress).assumingMemoryBound(to: UInt32.self)
  }

  /// Steps done by all threads: grows as long as the replay goes on.
  var total: UInt64 {
    (0..<count).reduce(0) { $0 + UInt64(self[$1].pointee.done.load(ordering: .relaxed)) }
  }
}
