// SPDX-License-Identifier: Apache-2.0
//
// The per-VMA lock word of policy `.perVMA`: what Linux 6.4-6.18 keeps as `vm_refcnt`/`vm_lock_seq`.
//
// Guarantee: a reader that entered excludes the writer until it leaves; a reader never waits.
// Mechanism: one word, readers counted in units of 2, bit 0 = write-locked; the writer waits for the
//   count to drain on a futex. The word is a cell of its own, so that successive records share it when
//   only the anonymous identity is published.
// Source: Linux mm/mmap_lock.c `vma_start_read`, `__vma_start_write`.

import CRangeland
import Synchronization

typealias VMACellRef = UnsafeMutablePointer<VMALockCell>

struct VMALockCell: ~Copyable {
  /// Readers * 2 + writer. Acquired by `tryRead` and `startWrite`, released by their ends.
  let word: Atomic<UInt32>
  /// Next cell that the same writer has locked. Only the writer touches it.
  var nextLocked: VMACellRef?

  /// A cell whose record is about to be published: *born write-locked* when a writer publishes it.
  init(writeLocked: Bool) {
    word = Atomic(writeLocked ? 1 : 0)
  }

  /// Enters as a reader unless a writer is in or waits. Never waits.
  borrowing func tryRead() -> Bool {
    var seen = word.load(ordering: .relaxed)
    while seen & 1 == 0 {
      let (done, current) = word.weakCompareExchange(
        expected: seen, desired: seen + 2, successOrdering: .acquiring, failureOrdering: .relaxed)
      if done { return true }
      seen = current
    }
    return false
  }

  /// Leaves as a reader; wakes the writer that waits for the last one.
  borrowing func endRead() {
    // Releases to the writer's acquiring load in `startWrite`.
    if word.subtract(2, ordering: .releasing).newValue == 1 { wakeWriter() }
  }

  /// Locks the word for a writer and waits for the readers to leave. The space's semaphore is held
  /// exclusively, so there is one writer. Returns whether it had to wait.
  ///
  /// - Precondition: the word is not write-locked.
  borrowing func startWrite() -> Bool {
    var seen = word.bitwiseOr(1, ordering: .acquiring).newValue
    if seen == 1 { return false }
    var spins = 0
    while seen != 1 {
      if spins < 200 {
        spins += 1
        rl_cpu_relax()
      } else {
        _ = withFutex { rl_futex_wait($0, seen, UInt64.max) }
      }
      seen = word.load(ordering: .acquiring)
    }
    return true
  }

  /// Whether a writer holds or awaits the word.
  var isWriteLocked: Bool { word.load(ordering: .relaxed) & 1 != 0 }

  /// Readers in the cell now: for diagnostics.
  var readers: UInt32 { word.load(ordering: .relaxed) >> 1 }

  /// Unlocks the writer's word. Readers never wait here, so there is nobody to wake.
  borrowing func endWrite() {
    word.bitwiseAnd(~1, ordering: .releasing)
  }

  private borrowing func wakeWriter() {
    _ = withFutex { rl_futex_wake($0, 1) }
  }

  /// The futex address: the cell lives in slab memory and does not move.
  private borrowing func withFutex(_ body: (UnsafeMutablePointer<UInt32>) -> Int32) -> Int32 {
    withUnsafePointer(to: self) {
      body(UnsafeMutableRawPointer(mutating: $0).assumingMemoryBound(to: UInt32.self))
    }
  }
}
