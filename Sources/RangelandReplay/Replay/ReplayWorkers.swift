// SPDX-License-Identifier: Apache-2.0
//
// The threads of the system that run recorded threads: one for each that lives, used again when it has ended.
//
// Mechanism: idle workers sleep on a word of their own and stand on a stack under a latch.
// Cost: starting a recorded thread is a futex wake-up; a system thread is made when none is idle.

import CRangeland
import Glibc
import RangeLocks
import Synchronization

/// A pool of threads that each run `body(thread)` for one recorded thread after another.
final class ReplayWorkers: @unchecked Sendable {
  // Sendable: what changes is guarded by the latch, or atomic.

  /// One system thread. Its memory lives until the pool is joined.
  private struct Worker: ~Copyable {
    /// 0 = idle, else the recorded thread + 2; 1 = end. Also the futex word.
    let order = Atomic<UInt32>(0)
    var handle = pthread_t()
    var nextIdle: UnsafeMutablePointer<Worker>?
    /// Keeps the pool alive for the worker.
    let pool: Unmanaged<ReplayWorkers>

    init(pool: Unmanaged<ReplayWorkers>) { self.pool = pool }

    static let end: UInt32 = 1
    static let offset: UInt32 = 2
  }

  private let body: @Sendable (Int) -> Void
  // Behind a pointer: a latch must not move.
  private let latch: UnsafeMutablePointer<Latch>
  /// Guarded by the latch.
  private var idle: UnsafeMutablePointer<Worker>?
  /// Guarded by the latch.
  private var all: [UnsafeMutablePointer<Worker>] = []

  /// Stack of a worker. Only what is used costs memory; a copy of a space that counts waits needs most.
  private static let stackBytes = 4 << 20
  /// The most workers: a few less than the threads that the library can number.
  static let limit = Int(RL_MAX_THREADS) - 64

  init(body: @escaping @Sendable (Int) -> Void) {
    self.body = body
    latch = .allocate(capacity: 1)
    latch.initialize(to: Latch())
  }

  deinit {
    latch.deinitialize(count: 1)
    latch.deallocate()
  }

  /// Makes `count` idle workers, outside the clock.
  func prepare(_ count: Int) throws(ReplayError) {
    for _ in 0..<min(count, Self.limit) { push(try make(order: 0)) }
  }

  /// Runs recorded thread `thread` on an idle worker, or a new one.
  func start(_ thread: Int) throws(ReplayError) {
    let order = UInt32(thread) + Worker.offset
    latch.pointee.lock()
    let worker = idle
    idle = worker?.pointee.nextIdle
    latch.pointee.unlock()
    guard let worker else {
      _ = try make(order: order)
      return
    }
    give(worker, order)
  }

  /// Ends all workers, which have to be idle or on their way there, and frees them.
  func join() {
    for worker in all { give(worker, Worker.end) }
    for worker in all {
      pthread_join(worker.pointee.handle, nil)
      worker.deinitialize(count: 1)
      worker.deallocate()
    }
    all = []
    idle = nil
  }

  private func give(_ worker: UnsafeMutablePointer<Worker>, _ order: UInt32) {
    // An `end` may follow on the last thread's heels: it waits until the worker is idle.
    while !worker.pointee.order.compareExchange(
      expected: 0, desired: order, successOrdering: .releasing, failureOrdering: .relaxed
    ).exchanged {
      rl_yield()
    }
    _ = rl_futex_wake(UnsafeMutableRawPointer(worker).assumingMemoryBound(to: UInt32.self), 1)
  }

  private func push(_ worker: UnsafeMutablePointer<Worker>) {
    latch.pointee.lock()
    worker.pointee.nextIdle = idle
    idle = worker
    latch.pointee.unlock()
  }

  private func make(order: UInt32) throws(ReplayError) -> UnsafeMutablePointer<Worker> {
    latch.pointee.lock()
    let count = all.count
    latch.pointee.unlock()
    guard count < Self.limit else { throw .tooManyThreads(Self.limit) }
    let worker = UnsafeMutablePointer<Worker>.allocate(capacity: 1)
    worker.initialize(to: Worker(pool: Unmanaged.passUnretained(self)))
    worker.pointee.order.store(order, ordering: .relaxed)
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setstacksize(&attributes, Self.stackBytes)
    defer { pthread_attr_destroy(&attributes) }
    let status = pthread_create(
      &worker.pointee.handle, &attributes,
      { argument in
        ReplayWorkers.run(argument!.assumingMemoryBound(to: Worker.self))
        return nil
      }, worker)
    guard status == 0 else {
      worker.deinitialize(count: 1)
      worker.deallocate()
      throw .noThread(status, count)
    }
    latch.pointee.lock()
    all.append(worker)
    latch.pointee.unlock()
    return worker
  }

  /// The life of a worker.
  private static func run(_ worker: UnsafeMutablePointer<Worker>) {
    let word = UnsafeMutableRawPointer(worker).assumingMemoryBound(to: UInt32.self)
    let pool = worker.pointee.pool.takeUnretainedValue()
    while true {
      let order = worker.pointee.order.load(ordering: .acquiring)
      if order == 0 {
        _ = rl_futex_wait(word, 0, .max)
        continue
      }
      if order == Worker.end { return }
      pool.body(Int(order - Worker.offset))
      worker.pointee.order.store(0, ordering: .releasing)
      pool.push(worker)
    }
  }
}
