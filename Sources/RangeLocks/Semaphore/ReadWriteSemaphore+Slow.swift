// SPDX-License-Identifier: Apache-2.0
//
// The semaphore under contention: polling, the queue, hand-off.
//
// Guarantee: a request that is queued is granted after all that queued before it, readers together; no wake-up
// is lost.
// Mechanism: every change of the queue and every decision who is next happens under the latch. Who releases
// sees the queued bit and passes on; who queues passes on itself, in case the last holder has just gone.
// Cost: a latch and a wake-up a hand-off; waiters live on their own stacks.

import CRangeland
import Synchronization

/// A queued request, on the stack of its thread. `signal` is atomic, the rest is protected by the latch.
struct SemaphoreWaiter: ~Copyable {
  /// 0 = wait, 1 = try again, 2 = granted. Also the futex word. `poke` releases to the waiter's acquire.
  let signal = Atomic<UInt32>(0)
  let mode: LockMode
  /// Whether it was told to try again, and found a holder: the next time it is granted instead.
  var wasWokenInVain = false
  var next: UnsafeMutablePointer<SemaphoreWaiter>?
  var previous: UnsafeMutablePointer<SemaphoreWaiter>?

  static let tryAgain: UInt32 = 1
  static let granted: UInt32 = 2

  init(_ mode: LockMode) { self.mode = mode }
}

extension ReadWriteSemaphore {
  /// Polls, queues, sleeps; false if the deadline passed first.
  @inline(never)
  borrowing func lockSlow(_ mode: LockMode, deadline: UInt64) -> Bool {
    if poll(mode) { return true }
    return withUnsafeTemporaryAllocation(of: SemaphoreWaiter.self, capacity: 1) { memory in
      let waiter = memory.baseAddress!
      waiter.initialize(to: SemaphoreWaiter(mode))
      latch.lock()
      append(waiter)
      passOnLocked()
      latch.unlock()
      let result = wait(waiter, deadline: deadline)
      waiter.deinitialize(count: 1)
      return result
    }
  }

  /// Polls for a time that follows what polling brought before: twice the mean, plus a few, bounded.
  private borrowing func poll(_ mode: LockMode) -> Bool {
    // Relaxed both ways: a hint.
    let estimate = pollEstimate.load(ordering: .relaxed)
    let limit = min(Self.pollLimit, 2 &* estimate &+ 10)
    var polls: UInt32 = 0
    var entered = false
    while polls < limit {
      if enterWhilePolling(mode) {
        entered = true
        break
      }
      rl_cpu_relax()
      polls += 1
    }
    let new = (estimate &* 7 &+ polls) / 8
    if new != estimate { pollEstimate.store(new, ordering: .relaxed) }
    return entered
  }

  /// Waits in the queue; on a deadline leaves it, unless the grant came first.
  private borrowing func wait(
    _ waiter: UnsafeMutablePointer<SemaphoreWaiter>, deadline: UInt64
  ) -> Bool {
    let word = UnsafeMutableRawPointer(waiter).assumingMemoryBound(to: UInt32.self)
    var polls: UInt32 = 0
    while true {
      // Acquires what the granter's predecessors wrote.
      switch waiter.pointee.signal.load(ordering: .acquiring) {
      case SemaphoreWaiter.granted: return true
      case SemaphoreWaiter.tryAgain:
        latch.lock()
        if waiter.pointee.signal.load(ordering: .relaxed) == SemaphoreWaiter.tryAgain {
          waiter.pointee.signal.store(0, ordering: .relaxed)
          waiter.pointee.wasWokenInVain = true
          passOnLocked()
        }
        latch.unlock()
        polls = 0
        continue
      default: break
      }
      if polls < Self.pollLimit {
        rl_cpu_relax()
        polls += 1
      } else if rl_futex_wait(word, 0, deadline) == -ETIMEDOUT {
        return leave(waiter)
      }
    }
  }

  /// Gives up a queued request; true if it was granted meanwhile and is kept.
  private borrowing func leave(_ waiter: UnsafeMutablePointer<SemaphoreWaiter>) -> Bool {
    latch.lock()
    defer { latch.unlock() }
    // Acquires like `wait`.
    if waiter.pointee.signal.load(ordering: .acquiring) == SemaphoreWaiter.granted { return true }
    remove(waiter)
    // Whoever stood behind us may enter now.
    passOnLocked()
    return false
  }

  /// Lets in or wakes the first of the queue after a release.
  @inline(never)
  borrowing func passOnSlow() {
    latch.lock()
    passOnLocked()
    latch.unlock()
  }

  /// Grants what can be granted to the front of the queue, in order. Needs the latch.
  ///
  /// A writer at the front is told to try again first: if nobody else wants the semaphore meanwhile it gets it
  /// without anybody waiting for its wake-up. Having been woken in vain it is granted, and until then the
  /// hand-off bit keeps others out.
  borrowing func passOnLocked() {
    while let first = head.load(ordering: .relaxed) {
      var old = word.load(ordering: .relaxed)
      if first.pointee.mode == .read {
        // Readers enter beside readers. Others enter meanwhile, so exchange until it fits.
        while old & Self.writer == 0 {
          let result = word.compareExchange(
            expected: old, desired: old &+ Self.reader, successOrdering: .acquiring,
            failureOrdering: .relaxed)
          if result.exchanged { break }
          old = result.original
        }
        if old & Self.writer != 0 {
          demandHandOff(first)
          return
        }
        remove(first)
        poke(first, SemaphoreWaiter.granted)
        continue
      }
      if old & ~(Self.queued | Self.handOff) != 0 {
        // Held: whoever releases passes on.
        demandHandOff(first)
        return
      }
      if !first.pointee.wasWokenInVain {
        poke(first, SemaphoreWaiter.tryAgain)
        return
      }
      if word.compareExchange(
        expected: old, desired: old | Self.writer, successOrdering: .acquiring,
        failureOrdering: .relaxed
      ).exchanged {
        remove(first)
        poke(first, SemaphoreWaiter.granted)
        return
      }
    }
  }

  /// Keeps newcomers out if `first` was woken in vain. Needs the latch. If the holder releases before the bit
  /// is set it saw the queued bit, and passes on after us.
  private borrowing func demandHandOff(_ first: UnsafeMutablePointer<SemaphoreWaiter>) {
    if first.pointee.wasWokenInVain || first.pointee.mode == .read {
      word.bitwiseOr(Self.handOff, ordering: .relaxed)
    }
  }

  /// Signals a waiter and wakes it. Granted, it may be gone at once: only its address is used afterwards, and
  /// a wake-up at an address that is something else by then is harmless.
  private borrowing func poke(_ waiter: UnsafeMutablePointer<SemaphoreWaiter>, _ signal: UInt32) {
    let word = UnsafeMutableRawPointer(waiter).assumingMemoryBound(to: UInt32.self)
    waiter.pointee.signal.store(signal, ordering: .releasing)
    _ = rl_futex_wake(word, 1)
  }

  // MARK: The queue, under the latch

  private borrowing func append(_ waiter: UnsafeMutablePointer<SemaphoreWaiter>) {
    let last = tail.load(ordering: .relaxed)
    waiter.pointee.previous = last
    if let last {
      last.pointee.next = waiter
    } else {
      head.store(waiter, ordering: .relaxed)
      // From now on whoever releases comes to the latch. Acquires the last release if it came before.
      word.bitwiseOr(Self.queued, ordering: .acquiring)
    }
    tail.store(waiter, ordering: .relaxed)
  }

  /// Takes a waiter out; the flags follow the queue and its first.
  private borrowing func remove(_ waiter: UnsafeMutablePointer<SemaphoreWaiter>) {
    let (next, previous) = (waiter.pointee.next, waiter.pointee.previous)
    if let next {
      next.pointee.previous = previous
    } else {
      tail.store(previous, ordering: .relaxed)
    }
    if let previous {
      previous.pointee.next = next
      return
    }
    head.store(next, ordering: .relaxed)
    // A demand for hand-off was the old first's.
    let flags = next == nil ? Self.queued | Self.handOff : Self.handOff
    word.bitwiseAnd(~flags, ordering: .relaxed)
  }
}
