// SPDX-License-Identifier: Apache-2.0
//
// Node allocation for one thread: see SlabPool.swift for the shared half.

import Synchronization

extension UnsafeMutablePointer where Pointee == ThreadContext {
  /// A node of `kind`, contents undefined, aligned to 16 bytes; `nil` when there is no memory.
  @inline(__always)
  func allocate(_ kind: SlabClass) -> UnsafeMutableRawPointer? {
    let cache = pointee.caches + kind.rawValue
    #if RANGELAND_CHECKS
      if cache.pointee.reserved > 0 {
        cache.pointee.reserved -= 1
      } else if countsDownToFailure(1) {
        return nil
      }
    #endif
    if let node = cache.pointee.free {
      cache.pointee.free = SlabHeader.of(node).pointee.next
      cache.pointee.count &-= 1
      return node
    }
    return allocateSlow(cache, kind)
  }

  @inline(never)
  private func allocateSlow(
    _ cache: UnsafeMutablePointer<SlabCache>, _ kind: SlabClass
  ) -> UnsafeMutableRawPointer? {
    guard refill(cache, kind), let node = cache.pointee.free else { return nil }
    cache.pointee.free = SlabHeader.of(node).pointee.next
    cache.pointee.count -= 1
    return node
  }

  /// Makes the next `count` calls of `allocate(kind)` on this thread succeed. `false` = no memory, and
  /// nothing has changed. An operation reserves all it needs before it changes anything.
  @inline(__always)
  func reserve(_ kind: SlabClass, count: Int) -> Bool {
    let cache = pointee.caches + kind.rawValue
    #if RANGELAND_CHECKS
      if countsDownToFailure(count) { return false }
    #endif
    while cache.pointee.count < count {
      if !refill(cache, kind) { return false }
    }
    #if RANGELAND_CHECKS
      cache.pointee.reserved = count
    #endif
    return true
  }

  /// Frees a node that no other thread can read: reusable at once.
  @inline(__always)
  func recycle(_ node: UnsafeMutableRawPointer, _ kind: SlabClass) {
    let cache = pointee.caches + kind.rawValue
    SlabHeader.of(node).pointee.next = cache.pointee.free
    cache.pointee.free = node
    cache.pointee.count &+= 1
    if cache.pointee.count > kind.cacheLimit { shed(cache, kind) }
  }

  @inline(never)
  private func refill(_ cache: UnsafeMutablePointer<SlabCache>, _ kind: SlabClass) -> Bool {
    guard let (first, count) = (pointee.reclaimer.pointee.pools + kind.rawValue).takeBatch(kind)
    else { return false }
    var last = first
    while let next = SlabHeader.of(last).pointee.next { last = next }
    SlabHeader.of(last).pointee.next = cache.pointee.free
    cache.pointee.free = first
    cache.pointee.count += count
    return true
  }

  /// Gives whole batches back to the pool when the cache holds many.
  @inline(never)
  func shed(_ cache: UnsafeMutablePointer<SlabCache>, _ kind: SlabClass) {
    while cache.pointee.count > kind.cacheLimit, let first = cache.pointee.free {
      var last = first
      for _ in 1..<kind.batch { last = SlabHeader.of(last).pointee.next! }
      cache.pointee.free = SlabHeader.of(last).pointee.next
      SlabHeader.of(last).pointee.next = nil
      cache.pointee.count -= kind.batch
      (pointee.reclaimer.pointee.pools + kind.rawValue).giveBatch(first)
    }
  }

  #if RANGELAND_CHECKS
    private func countsDownToFailure(_ count: Int) -> Bool {
      let hook = pointee.reclaimer.pointee.allocationsUntilFailure.load(ordering: .relaxed)
      if hook < 0 { return false }
      return pointee.reclaimer.pointee.allocationsUntilFailure.subtract(
        count, ordering: .relaxed
      ).newValue < 0
    }
  #endif
}
