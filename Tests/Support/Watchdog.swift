// SPDX-License-Identifier: Apache-2.0
//
// A watchdog for tests that block: a stuck thread cannot be freed, so the process ends with a reason.
//
// Guarantee: unless `cancel()` is called in time, the process prints what was waited for and aborts.
// Mechanism: a detached thread sleeps on a futex word until the word changes or the time is over.
// Cost: one thread while it is armed.
// Source: the project's test rules (a time-limit trait of the test library frees no stuck thread).

import CRangeland
import Glibc
import Synchronization

/// Aborts the process with a message unless it is cancelled within its time.
///
/// Limits are stated for a machine that does nothing else and multiplied by 8: a slow or busy machine is not to be taken
/// for a hang. `WATCHDOG_SCALE=n` in the environment sets another factor.
public final class Watchdog: Sendable {
  private let state: WatchdogState

  /// Arms the watchdog.
  ///
  /// - Parameters:
  ///   - seconds: time until the process is aborted, on an idle machine.
  ///   - what: what the test waits for; printed on expiry.
  ///   - dump: called on expiry before the abort, to describe the state of what is stuck.
  public init(
    seconds: Int, _ what: String, dump: @escaping @Sendable () -> String = { "" }
  ) {
    let scale = getenv("WATCHDOG_SCALE").flatMap { Int(String(cString: $0)) } ?? 8
    let limit = seconds * max(1, scale)
    let state = WatchdogState()
    self.state = state
    let deadline = rl_monotonic_ns() + UInt64(limit) * 1_000_000_000
    _ = startThread(detached: true) {
      while !state.isCancelled {
        if state.sleep(until: deadline) == -ETIMEDOUT, !state.isCancelled {
          let message = "watchdog: \(what): not done after \(limit) s\n\(dump())\n"
          _ = message.utf8.withContiguousStorageIfAvailable { write(2, $0.baseAddress, $0.count) }
          abort()
        }
      }
    }
  }

  /// Disarms the watchdog. Calling it again does nothing.
  public func cancel() { state.cancel() }

  deinit { state.cancel() }
}

/// Runs `body` under a watchdog that is disarmed when `body` returns or throws.
public func withWatchdog<R: ~Copyable, E: Error>(
  seconds: Int = 60, _ what: String, dump: @escaping @Sendable () -> String = { "" },
  _ body: () throws(E) -> R
) throws(E) -> R {
  let dog = Watchdog(seconds: seconds, what, dump: dump)
  defer { dog.cancel() }
  return try body()
}

/// The futex word that the watchdog's thread sleeps on; the thread keeps it alive.
private final class WatchdogState: @unchecked Sendable {
  // Sendable: the pointer is immutable, and its word is only used through atomic operations and futexes.
  private let word: UnsafeMutablePointer<Atomic<UInt32>>

  init() {
    word = .allocate(capacity: 1)
    word.initialize(to: Atomic(0))
  }

  deinit {
    word.deinitialize(count: 1)
    word.deallocate()
  }

  // Acquires what the thread that cancelled had written.
  var isCancelled: Bool { word.pointee.load(ordering: .acquiring) != 0 }

  func cancel() {
    word.pointee.store(1, ordering: .releasing)
    _ = rl_futex_wake(address, Int32.max)
  }

  func sleep(until deadline: UInt64) -> Int32 { rl_futex_wait(address, 0, deadline) }

  private var address: UnsafeMutablePointer<UInt32> {
    UnsafeMutableRawPointer(word).assumingMemoryBound(to: UInt32.self)
  }
}
