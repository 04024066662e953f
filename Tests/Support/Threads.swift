// SPDX-License-Identifier: Apache-2.0
//
// Threads for tests: pthreads, because tasks share too few threads for tests that block.
//
// Guarantee: `runThreads` starts all bodies only after every thread exists and returns after all ended.
// Mechanism: pthread_create, one pthread_barrier, pthread_join.
// Cost: thread creation; nothing inside the bodies.
// Source: POSIX threads.

import Glibc

/// Runs `body(0) ... body(count - 1)` on `count` threads that meet at a barrier first, and joins them.
public func runThreads(_ count: Int, body: @escaping @Sendable (Int) -> Void) {
  precondition(count > 0, "runThreads: at least one thread")
  let barrier = Barrier(count)
  let threads = (0..<count).map { index in
    TestThread {
      barrier.wait()
      body(index)
    }
  }
  for thread in threads { thread.join() }
}

/// A thread that a test starts now and joins later, to park it somewhere in between.
public final class TestThread: Sendable {
  private let thread: pthread_t

  /// Starts a thread that runs `body`.
  public init(_ body: @escaping @Sendable () -> Void) {
    thread = startThread(detached: false, body)
  }

  /// Waits until the body has returned. Call it exactly once.
  public func join() {
    let error = pthread_join(thread, nil)
    precondition(error == 0, "pthread_join failed: \(error)")
  }
}

/// A barrier for a fixed number of threads, usable any number of times.
public final class Barrier: @unchecked Sendable {
  // Sendable: the pointer is immutable and the pthread functions synchronise what it points to.
  private let barrier: UnsafeMutablePointer<pthread_barrier_t>

  /// A barrier that `count` threads meet at.
  public init(_ count: Int) {
    barrier = .allocate(capacity: 1)
    let error = pthread_barrier_init(barrier, nil, UInt32(count))
    precondition(error == 0, "pthread_barrier_init failed: \(error)")
  }

  /// Waits until all threads have arrived.
  public func wait() { _ = pthread_barrier_wait(barrier) }

  deinit {
    pthread_barrier_destroy(barrier)
    barrier.deallocate()
  }
}

/// Holds the closure that crosses into the new thread.
private final class ThreadBody: Sendable {
  let run: @Sendable () -> Void
  init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}

/// Creates a thread that runs `body`; traps when the system refuses one.
func startThread(detached: Bool, _ body: @escaping @Sendable () -> Void) -> pthread_t {
  let argument = Unmanaged.passRetained(ThreadBody(body)).toOpaque()
  var thread = pthread_t()
  let error = pthread_create(
    &thread, nil,
    { argument in
      Unmanaged<ThreadBody>.fromOpaque(argument!).takeRetainedValue().run()
      return nil
    }, argument)
  precondition(error == 0, "pthread_create failed: \(error)")
  if detached { pthread_detach(thread) }
  return thread
}
