// SPDX-License-Identifier: Apache-2.0
//
// Epoch-based reclamation and the slab pools, shared by every space on one physical memory.
//
// Guarantee: a node retired after it was unlinked is reused only when every thread that was pinned at
//   that time has unpinned.
// Mechanism: three limbo generations per thread and kind; the global epoch moves on when a thread has seen
//   every other one, at some instant of that epoch, not pinned or pinned in it. A generation is reused three epochs later: one more than the classic rule,
//   because the unlinking store may still sit in a store buffer when the epoch is read.
// Cost: pin = one sequentially consistent store; retire = a few plain stores, and after 128 in one epoch a
//   look at the slot of one thread: each advance of the epoch costs every running thread a cache miss or two.
// Source: Fraser, "Practical lock-freedom" (2004), section 5.2.3.

import CRangeland
import RangeLocks
import Synchronization

struct Reclaimer: ~Copyable {
  /// The global epoch, on a pair of cache lines of its own: it is written now and then, and the rest of this
  /// is read by every operation. Partner: the slots of the pinned threads.
  let epoch: UnsafeMutablePointer<Atomic<UInt64>>
  /// `RL_MAX_THREADS` atomic pointers, lazily committed; set once by the owning thread.
  let contexts: UnsafeMutablePointer<Atomic<UInt>>
  /// One pool per `SlabClass`.
  let pools: UnsafeMutablePointer<SlabPool>
  /// Allocations until one fails: a test hook, read in checked builds only. Negative = disarmed.
  let allocationsUntilFailure = Atomic<Int>(-1)

  private static var contextBytes: Int { Int(RL_MAX_THREADS) * MemoryLayout<UInt>.stride }

  /// Makes a reclaimer in memory of its own; `nil` when the kernel refuses the memory.
  static func make() -> UnsafeMutablePointer<Reclaimer>? {
    guard let table = rl_reserve(contextBytes) else { return nil }
    let pools = UnsafeMutablePointer<SlabPool>.allocate(capacity: SlabClass.allCases.count)
    for i in 0..<SlabClass.allCases.count { (pools + i).initialize(to: SlabPool()) }
    let reclaimer = UnsafeMutablePointer<Reclaimer>.allocate(capacity: 1)
    reclaimer.initialize(
      to: Reclaimer(
        contexts: table.bindMemory(to: Atomic<UInt>.self, capacity: Int(RL_MAX_THREADS)),
        pools: pools))
    return reclaimer
  }

  private init(
    contexts: UnsafeMutablePointer<Atomic<UInt>>, pools: UnsafeMutablePointer<SlabPool>
  ) {
    self.contexts = contexts
    self.pools = pools
    epoch = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 128)
      .bindMemory(to: Atomic<UInt64>.self, capacity: 1)
    epoch.initialize(to: Atomic(3))
  }

  /// Frees everything. No thread may use the reclaimer or a node of it any more.
  static func destroy(_ reclaimer: UnsafeMutablePointer<Reclaimer>) {
    for i in 0..<Int(RL_MAX_THREADS) {
      let bits = reclaimer.pointee.contexts[i].load(ordering: .acquiring)
      if bits == 0 {
        if i >= Int(rl_thread_index_bound()) { break }
        continue
      }
      ThreadContext.destroy(Context(bitPattern: bits)!)
    }
    for i in 0..<SlabClass.allCases.count {
      (reclaimer.pointee.pools + i).releaseChunks()
      (reclaimer.pointee.pools + i).deinitialize(count: 1)
    }
    reclaimer.pointee.pools.deallocate()
    reclaimer.pointee.epoch.deinitialize(count: 1)
    reclaimer.pointee.epoch.deallocate()
    _ = rl_release(UnsafeMutableRawPointer(reclaimer.pointee.contexts), contextBytes)
    reclaimer.deinitialize(count: 1)
    reclaimer.deallocate()
  }

  /// Looks whether a thread is pinned in an earlier epoch than `now`: the one with this index, or the next one that there is.
  /// Moves the epoch on from `now` when there is none.
  ///
  /// - Precondition: in this epoch all before it have been seen not to be.
  /// - Returns: where to look next; the same index while that thread is.
  borrowing func look(at index: Int, _ now: UInt64) -> Int {
    let bound = Int(rl_thread_index_bound())
    for i in min(index, bound)..<bound {
      let bits = contexts[i].load(ordering: .acquiring)
      guard bits != 0, let context = Context(bitPattern: bits) else { continue }
      // Partner: the store in `pin`. A thread whose store we miss reads `epoch` after it.
      let slot = context.pointee.slot.load(ordering: .sequentiallyConsistent)
      return slot != 0 && slot >> 1 != now ? i : i + 1
    }
    _ = epoch.pointee.compareExchange(
      expected: now, desired: now + 1, ordering: .sequentiallyConsistent)
    return 0
  }
}

extension UnsafeMutablePointer where Pointee == Reclaimer {
  /// The context of the calling thread, made at its first use. Traps when the process has no memory
  /// for the few kilobytes that it takes.
  @inline(__always)
  func context() -> Context {
    // Relaxed: only this thread writes this slot (index reuse goes through a mutex).
    let bits = pointee.contexts[Int(rl_thread_index())].load(ordering: .relaxed)
    if let context = Context(bitPattern: bits) { return context }
    return makeContext()
  }

  @inline(never)
  private func makeContext() -> Context {
    let index = rl_thread_index()
    let context = ThreadContext.make(index: index, reclaimer: self)
    // Releases the initialised context to `look`.
    pointee.contexts[Int(index)].store(UInt(bitPattern: context), ordering: .releasing)
    return context
  }

  /// Makes the allocation after the next `count` fail, once. Checked builds only; for tests.
  func failAllocation(after count: Int) {
    pointee.allocationsUntilFailure.store(count, ordering: .relaxed)
  }

  /// Disarms `failAllocation(after:)`; whether the failure has happened.
  @discardableResult
  func disarmFailure() -> Bool {
    pointee.allocationsUntilFailure.exchange(-1, ordering: .relaxed) < 0
  }
}
