// SPDX-License-Identifier: Apache-2.0
//
// Waiting for something that others do, in any number.
//
// Guarantee: who reads the count, looks, finds nothing and waits is woken by every event after it has read.
// Mechanism: a word that threads sleep on, and how many of them there are: an event that nobody waits for costs no system
//   call. Who waits announces itself, then has the kernel compare the word; who signals changes the word, then looks
//   whether anybody waits (Dekker's pattern, both steps of both sequentially consistent): one of them sees the other.
// Cost: two atomics on one line an event.
// Source: Linux kernel/sched/wait.c; the pattern is in Dijkstra 1965.

import CRangeland
import Synchronization

// Sendable: an immutable pointer to atomics.
struct EventCount: ~Copyable, @unchecked Sendable {
  private struct Words: ~Copyable {
    let count = Atomic<UInt32>(0)
    let waiters = Atomic<UInt32>(0)
  }

  private let words: UnsafeMutablePointer<Words>

  init() {
    words = .allocate(capacity: 1)
    words.initialize(to: Words())
  }

  deinit {
    words.deinitialize(count: 1)
    words.deallocate()
  }

  /// To be read before the look that finds nothing.
  var value: UInt32 { words.pointee.count.load(ordering: .acquiring) }

  borrowing func signal() {
    words.pointee.count.add(1, ordering: .sequentiallyConsistent)
    if words.pointee.waiters.load(ordering: .sequentiallyConsistent) == 0 { return }
    // Sound: an atomic of 32 bits is its 32 bits, and the first of the words.
    _ = UnsafeMutableRawPointer(words).withMemoryRebound(to: UInt32.self, capacity: 1) {
      rl_futex_wake($0, Int32.max)
    }
  }

  /// Waits for an event after `value` was read, or until a time (CLOCK_MONOTONIC, in ns).
  borrowing func wait(since value: UInt32, until deadline: UInt64 = .max) {
    words.pointee.waiters.add(1, ordering: .sequentiallyConsistent)
    _ = UnsafeMutableRawPointer(words).withMemoryRebound(to: UInt32.self, capacity: 1) {
      rl_futex_wait($0, value, deadline)
    }
    words.pointee.waiters.subtract(1, ordering: .relaxed)
  }
}
