// SPDX-License-Identifier: Apache-2.0
//
// What one thread keeps for one physical memory: its epoch slot and its caches of free nodes.
//
// Only the owning thread touches it, except the epoch slot. A thread index is reused after its thread
// has ended, and the context with it: what the old thread left is adopted, nothing is lost.

import CRangeland
import Synchronization

typealias Context = UnsafeMutablePointer<ThreadContext>

struct ThreadContext: ~Copyable {
  /// First, because the thread sanitizer takes an inout access of a field for one of the first word too.
  var pinDepth: UInt32 = 0
  let index: UInt32
  /// 0 = not pinned, else epoch << 1 | 1. Partner: `Reclaimer.look`.
  let slot = Atomic<UInt64>(0)
  let reclaimer: UnsafeMutablePointer<Reclaimer>
  /// The reclaimer's: a copy spares every operation a load.
  let epoch: UnsafeMutablePointer<Atomic<UInt64>>
  /// Nodes retired in `retiredEpoch`, or since the thread tried to move the epoch on: see `retire`.
  var retired = 0
  var retiredEpoch: UInt64 = 0
  /// The epoch that the thread tries to end, and the index of the thread that it looks at next.
  var lookedEpoch: UInt64 = 0
  var nextToLook = 0
  /// Records that this thread index has made: see `LayoutTree.nextGeneration`.
  var generations: UInt64 = 0
  /// One cache per `SlabClass`.
  let caches: UnsafeMutablePointer<SlabCache>
  /// The thread's cache of free frames: see Paging/Frames.
  var frames = FrameCache()

  static func make(index: UInt32, reclaimer: UnsafeMutablePointer<Reclaimer>) -> Context {
    let caches = UnsafeMutableRawPointer.allocate(
      byteCount: SlabClass.allCases.count * MemoryLayout<SlabCache>.stride, alignment: 128
    ).bindMemory(to: SlabCache.self, capacity: SlabClass.allCases.count)
    for i in 0..<SlabClass.allCases.count { (caches + i).initialize(to: SlabCache()) }
    // 128 bytes more than needed, so that the slot shares no line with the next allocation.
    let context = UnsafeMutableRawPointer.allocate(
      byteCount: MemoryLayout<ThreadContext>.size + 128, alignment: 128
    ).bindMemory(to: ThreadContext.self, capacity: 1)
    context.initialize(
      to: ThreadContext(
        index: index, reclaimer: reclaimer, epoch: reclaimer.pointee.epoch, caches: caches))
    return context
  }

  static func destroy(_ context: Context) {
    context.pointee.caches.deinitialize(count: SlabClass.allCases.count)
    context.pointee.caches.deallocate()
    context.deinitialize(count: 1)
    context.deallocate()
  }
}

/// A thread's free nodes of one kind, and those that wait for their epoch.
struct SlabCache {
  var free: UnsafeMutableRawPointer?
  var count = 0
  /// Nodes promised by `reserve`: allocations that may not fail.
  var reserved = 0
  var limbo0 = Limbo()
  var limbo1 = Limbo()
  var limbo2 = Limbo()

  /// Nodes retired in one epoch.
  struct Limbo {
    var epoch: UInt64 = 0
    var first: UnsafeMutableRawPointer?
    var last: UnsafeMutableRawPointer?
    var count = 0
  }
}
