// SPDX-License-Identifier: Apache-2.0
//
// Epoch sections and retirement: see Reclaimer.swift for the argument.

import Synchronization

extension UnsafeMutablePointer where Pointee == ThreadContext {
  /// Starts an epoch section: what the thread reads from published pointers stays valid until the
  /// matching `unpin()`. Nests. Never waits.
  @inline(__always)
  func pin() {
    pointee.pinDepth &+= 1
    if pointee.pinDepth == 1 {
      let epoch = pointee.epoch.pointee.load(ordering: .relaxed)
      // Ordered before the section's reads. Partner: the look in `Reclaimer.look`.
      pointee.slot.store(epoch << 1 | 1, ordering: .sequentiallyConsistent)
    }
  }

  /// Ends the section that the matching `pin()` started.
  @inline(__always)
  func unpin() {
    assert(pointee.pinDepth > 0, "unpin without pin")
    pointee.pinDepth &-= 1
    if pointee.pinDepth == 0 {
      // The section's reads happen before a scan that sees 0.
      pointee.slot.store(0, ordering: .releasing)
    }
  }

  /// Whether the thread is in an epoch section.
  var isPinned: Bool { pointee.pinDepth > 0 }

  /// Gives up a node that was published and is unlinked now: reusable once every thread that is pinned
  /// now has unpinned.
  ///
  /// - Precondition: the thread is pinned, and was when it unlinked the node.
  func retire(_ node: UnsafeMutableRawPointer, _ kind: SlabClass) {
    assert(isPinned, "retire outside an epoch section")
    let cache = pointee.caches + kind.rawValue
    let now = pointee.epoch.pointee.load(ordering: .sequentiallyConsistent)
    switch now % 3 {
    case 0: push(node, into: &cache.pointee.limbo0, cache, now)
    case 1: push(node, into: &cache.pointee.limbo1, cache, now)
    default: push(node, into: &cache.pointee.limbo2, cache, now)
    }
    if pointee.retiredEpoch != now {
      // Somebody moved it on: once in a while is enough for all.
      pointee.retiredEpoch = now
      pointee.retired = 0
    }
    pointee.retired &+= kind.weight
    if pointee.retired >= 128 { look(now) }
    if cache.pointee.count > kind.cacheLimit { shed(cache, kind) }
  }

  /// Looks at one more thread, or again at the one that is behind: a cache miss each, so not at all of them in one
  /// operation. What was seen in an epoch stays good for it.
  @inline(never)
  private func look(_ epoch: UInt64) {
    if pointee.lookedEpoch != epoch {
      pointee.lookedEpoch = epoch
      pointee.nextToLook = 0
    }
    pointee.nextToLook = pointee.reclaimer.pointee.look(at: pointee.nextToLook, epoch)
  }

  @inline(__always)
  private func push(
    _ node: UnsafeMutableRawPointer, into limbo: inout SlabCache.Limbo,
    _ cache: UnsafeMutablePointer<SlabCache>, _ now: UInt64
  ) {
    if limbo.epoch != now {
      // What is here is at least three epochs old: free.
      if let first = limbo.first, let last = limbo.last {
        SlabHeader.of(last).pointee.next = cache.pointee.free
        cache.pointee.free = first
        cache.pointee.count += limbo.count
      }
      limbo = SlabCache.Limbo(epoch: now)
    }
    SlabHeader.of(node).pointee.next = limbo.first
    limbo.first = node
    if limbo.last == nil { limbo.last = node }
    limbo.count += 1
  }
}
