// SPDX-License-Identifier: Apache-2.0
//
// The shared half of the frame allocator: batches, frames never used, and recall near the limit.
// Unranked latches: the lists' latches, innermost of all; a recall holds all of them, ascending.

import CRangeland
import Synchronization

extension UnsafeMutablePointer where Pointee == FrameArena {
  /// Fills the thread's empty cache and takes a frame from it; 0 = every frame is in use.
  @inline(never)
  func allocateSlow(_ context: Context) -> FrameNumber {
    let own = Int(context.pointee.index)
    if takeBatch(own, context) { return context.takeFrame() }
    let stripe = pointee.stripe(own)
    stripe.pointee.latch.lock()
    let hasCut = cutVirgin(context)
    stripe.pointee.latch.unlock()
    if hasCut { return context.takeFrame() }
    for i in 1..<FrameArena.stripeCount where takeBatch(own + i, context) {
      return context.takeFrame()
    }
    return recall(context)
  }

  /// Moves a batch of list `i` into the thread's cache.
  private func takeBatch(_ i: Int, _ context: Context) -> Bool {
    let stripe = pointee.stripe(i)
    // A hint: `recall` looks again under the latch.
    if stripe.pointee.first.load(ordering: .relaxed) == 0 { return false }
    stripe.pointee.latch.lock()
    let first = stripe.pointee.first.load(ordering: .relaxed)
    if first != 0 {
      stripe.pointee.first.store(
        UInt32(truncatingIfNeeded: pointee.metadata[Int(first)].index), ordering: .relaxed)
    }
    putChain(first, context)
    stripe.pointee.latch.unlock()
    return first != 0
  }

  /// Puts a chain of at most `batch` frames into the thread's cache, which has room for it.
  private func putChain(_ first: FrameNumber, _ context: Context) {
    var frame = first
    while frame != 0 {
      let next = pointee.metadata[Int(frame)].link
      context.putFrame(frame)
      frame = next
    }
  }

  /// Moves frames that were never used into the thread's cache. Needs the latch of one list at least,
  /// so that `recall` cannot miss the frames on their way.
  private func cutVirgin(_ context: Context) -> Bool {
    var next = pointee.virgin.load(ordering: .relaxed)
    while next <= pointee.limit {
      let count = Swift.min(UInt32(FrameArena.batch), pointee.limit - next + 1)
      let (done, seen) = pointee.virgin.weakCompareExchange(
        expected: next, desired: next + count, ordering: .relaxed)
      if done {
        // Highest first, so that the stack hands them out ascending.
        for i in (0..<count).reversed() { context.putFrame(next + i) }
        return true
      }
      next = seen
    }
    return false
  }

  /// Makes room in the thread's full cache: a batch goes to the thread's list. Its chain begins with the frame
  /// that was taken last, so that the batch comes back in the order in which it lay here.
  @inline(never)
  func shed(_ context: Context) {
    let stripe = pointee.stripe(Int(context.pointee.index))
    stripe.pointee.latch.lock()
    defer { stripe.pointee.latch.unlock() }
    var first: FrameNumber = 0
    for _ in 0..<FrameArena.batch {
      let frame = context.takeFrame()
      if frame == 0 { break }
      pointee.metadata[Int(frame)].link = first
      first = frame
    }
    guard first != 0 else { return }
    pointee.metadata[Int(first)].index = UInt64(stripe.pointee.first.load(ordering: .relaxed))
    stripe.pointee.first.store(first, ordering: .relaxed)
  }

  /// Looks everywhere, with all lists latched: a frame that is free throughout the call is found,
  /// because frames move between caches and lists only under a list's latch. 0 = none.
  @inline(never)
  private func recall(_ context: Context) -> FrameNumber {
    for i in 0..<FrameArena.stripeCount { pointee.stripe(i).pointee.latch.lock() }
    defer {
      for i in (0..<FrameArena.stripeCount).reversed() { pointee.stripe(i).pointee.latch.unlock() }
    }
    for i in 0..<FrameArena.stripeCount {
      let stripe = pointee.stripe(i)
      let first = stripe.pointee.first.load(ordering: .relaxed)
      if first != 0 {
        stripe.pointee.first.store(
          UInt32(truncatingIfNeeded: pointee.metadata[Int(first)].index), ordering: .relaxed)
        putChain(first, context)
        return context.takeFrame()
      }
    }
    if cutVirgin(context) { return context.takeFrame() }
    for i in 0..<Int(rl_thread_index_bound()) {
      // Acquires the initialised context.
      let bits = pointee.reclaimer.pointee.contexts[i].load(ordering: .acquiring)
      guard bits != 0, let other = Context(bitPattern: bits), other != context else { continue }
      let slots = other.pointee.frames.slots
      for s in 0..<FrameCache.capacity where slots[s].load(ordering: .relaxed) != 0 {
        // Acquires what the releasing store in `putFrame` publishes.
        let frame = slots[s].exchange(0, ordering: .acquiring)
        if frame != 0 { return frame }
      }
    }
    return 0
  }

  /// Frames that are free, wherever they are. Exact while no thread allocates or frees.
  func freeCount() -> Int {
    var count = 0
    for i in 0..<FrameArena.stripeCount {
      let stripe = pointee.stripe(i)
      stripe.pointee.latch.lock()
      var batch = stripe.pointee.first.load(ordering: .relaxed)
      while batch != 0 {
        var frame = batch
        while frame != 0 {
          count += 1
          frame = pointee.metadata[Int(frame)].link
        }
        batch = UInt32(truncatingIfNeeded: pointee.metadata[Int(batch)].index)
      }
      stripe.pointee.latch.unlock()
    }
    for i in 0..<Int(rl_thread_index_bound()) {
      let bits = pointee.reclaimer.pointee.contexts[i].load(ordering: .acquiring)
      guard bits != 0, let other = Context(bitPattern: bits) else { continue }
      for s in 0..<FrameCache.capacity
      where other.pointee.frames.slots[s].load(ordering: .acquiring) != 0 {
        count += 1
      }
    }
    return count + Int(pointee.limit) + 1 - Int(pointee.virgin.load(ordering: .relaxed))
  }

  /// Frames in use. Exact while no thread allocates or frees.
  func usedCount() -> Int { Int(pointee.limit) - freeCount() }
}
