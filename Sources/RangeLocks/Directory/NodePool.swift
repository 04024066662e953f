// SPDX-License-Identifier: Apache-2.0
//
// The memory of requests: one pool of 128-byte blocks for all locks.
//
// Guarantee: in steady state no operation calls malloc or the kernel; blocks are never unmapped, so a late
// futex wake-up of a recycled block is harmless; a failure to grow is reported, never a trap.
// Mechanism: a free list per thread (dense thread index), refilled from and trimmed to a shared list under a
// latch, which grows by 1 MiB mappings.
// Cost: two loads and two stores to take or give back a block; 128 bytes a block, 8 KiB kept a thread.
// Source: Bonwick, Adams, "Magazines and Vmem" (2001): thread caches of bounded size before a depot.

import CRangeland
import Synchronization

/// Size and alignment of a block: what two threads write stays on different pairs of cache lines.
@usableFromInline var nodeStride: Int { 128 }

/// One thread's free list, `nodeStride` bytes apart from the next thread's. Only that thread uses it; a
/// later thread with the same index is ordered after it by the index assignment's lock.
@usableFromInline
struct NodeCache {
  @usableFromInline var head: UnsafeMutableRawPointer?
  /// Blocks in the list; in the high half the thread's requests in directories, over all locks.
  @usableFromInline var counts: UInt64

  @inline(__always)
  var count: Int { Int(counts & 0xFFFF_FFFF) }

  @usableFromInline static var oneRequest: UInt64 { 1 << 32 }

  /// Whether the next request is not one that samples: see `Directory.sample`.
  @inline(__always)
  var isNoSampleDue: Bool {
    (counts &+ Self.oneRequest) & (UInt64(ModeSwitch.sampleInterval - 1) << 32) != 0
  }

  /// A block was taken for a request in a directory.
  @inline(__always)
  mutating func countTakeForRequest() { counts &+= Self.oneRequest &- 1 }
}

/// What all threads share; protected by the pool's latch.
struct NodeDepot {
  var head: UnsafeMutableRawPointer?
  var count: Int
  /// The part of the newest chunk that was never handed out.
  var fresh: UnsafeMutableRawPointer?
  var freshLeft: Int
  /// Blocks handed out since the process began.
  var carved: Int
}

/// The handle: the start of the per-thread caches. Copy it freely; it is valid for ever.
@usableFromInline
struct NodePool: @unchecked Sendable {
  // Sendable: a cache is used by its own thread only, the depot under its latch.

  /// `RL_MAX_THREADS` caches, then the latch of the depot, then the depot.
  @usableFromInline let caches: UnsafeMutableRawPointer

  /// Most blocks a thread keeps to itself, and how many move at a time.
  @usableFromInline static var cacheLimit: Int { 64 }
  static let batch = 32
  static let chunkBytes = 1 << 20

  /// The pool of the process.
  static let shared = NodePool()

  /// A pool of its own, for tests that count blocks. It is never freed.
  init() {
    let bytes = (Int(RL_MAX_THREADS) + 2) * nodeStride
    guard let base = rl_reserve(bytes) else {
      fatalError("RangeLocks: no address space for \(bytes) bytes of per-thread lists")
    }
    caches = base
  }

  @inlinable @inline(__always)
  func cache(_ thread: UInt32) -> UnsafeMutablePointer<NodeCache> {
    (caches + Int(thread) &* nodeStride).assumingMemoryBound(to: NodeCache.self)
  }

  /// The calling thread's, for its waits on all locks. Apart from the list, which tests look at while the thread waits.
  func waitBudget() -> UnsafeMutablePointer<WaitBudget> {
    (caches + Int(rl_thread_index()) &* nodeStride + 64).assumingMemoryBound(to: WaitBudget.self)
  }

  private var latch: UnsafeMutablePointer<Latch> {
    (caches + Int(RL_MAX_THREADS) * nodeStride).assumingMemoryBound(to: Latch.self)
  }

  private var depot: UnsafeMutablePointer<NodeDepot> {
    (caches + (Int(RL_MAX_THREADS) + 1) * nodeStride).assumingMemoryBound(to: NodeDepot.self)
  }

  /// Takes a block whose contents are unspecified; nil when the system gives no more memory.
  @inlinable @inline(__always)
  func take() -> UnsafeMutableRawPointer? { take(cache(rl_thread_index())) }

  /// The same, given the calling thread's cache.
  @inlinable @inline(__always)
  func take(_ cache: UnsafeMutablePointer<NodeCache>) -> UnsafeMutableRawPointer? {
    #if RANGELAND_CHECKS
      if Self.isToRefuse() { return nil }
    #endif
    guard let block = cache.pointee.head else { return takeSlow(cache) }
    cache.pointee.head = block.load(as: UnsafeMutableRawPointer?.self)
    cache.pointee.counts &-= 1
    return block
  }

  /// Gives a block back to the calling thread's list.
  @inlinable @inline(__always)
  func give(_ block: UnsafeMutableRawPointer) { give(block, cache(rl_thread_index())) }

  /// The same, given the calling thread's cache.
  @inlinable @inline(__always)
  func give(_ block: UnsafeMutableRawPointer, _ cache: UnsafeMutablePointer<NodeCache>) {
    block.storeBytes(of: cache.pointee.head, as: UnsafeMutableRawPointer?.self)
    cache.pointee.head = block
    cache.pointee.counts &+= 1
    if UInt32(truncatingIfNeeded: cache.pointee.counts) > UInt32(Self.cacheLimit) {
      trimSlow(cache)
    }
  }

  /// Fills the cache with a batch and takes one of it.
  @usableFromInline @inline(never)
  func takeSlow(_ cache: UnsafeMutablePointer<NodeCache>) -> UnsafeMutableRawPointer? {
    let depot = depot
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    for _ in 0..<Self.batch {
      guard let block = takeLocked(depot) else { break }
      block.storeBytes(of: cache.pointee.head, as: UnsafeMutableRawPointer?.self)
      cache.pointee.head = block
      cache.pointee.counts += 1
    }
    guard let block = cache.pointee.head else { return nil }
    cache.pointee.head = block.load(as: UnsafeMutableRawPointer?.self)
    cache.pointee.counts -= 1
    return block
  }

  /// A block from the depot's list, else a fresh one. Needs the latch.
  private func takeLocked(_ depot: UnsafeMutablePointer<NodeDepot>) -> UnsafeMutableRawPointer? {
    if let block = depot.pointee.head {
      depot.pointee.head = block.load(as: UnsafeMutableRawPointer?.self)
      depot.pointee.count -= 1
      return block
    }
    if depot.pointee.freshLeft == 0 {
      guard let chunk = rl_reserve(Self.chunkBytes) else { return nil }
      depot.pointee.fresh = chunk
      depot.pointee.freshLeft = Self.chunkBytes / nodeStride
    }
    let block = depot.pointee.fresh!
    depot.pointee.fresh = block + nodeStride
    depot.pointee.freshLeft -= 1
    depot.pointee.carved += 1
    return block
  }

  /// Moves a batch to the depot: a thread that only releases what others acquired must not hoard.
  @usableFromInline @inline(never)
  func trimSlow(_ cache: UnsafeMutablePointer<NodeCache>) {
    let depot = depot
    latch.pointee.lock()
    for _ in 0..<Self.batch {
      let block = cache.pointee.head!
      cache.pointee.head = block.load(as: UnsafeMutableRawPointer?.self)
      block.storeBytes(of: depot.pointee.head, as: UnsafeMutableRawPointer?.self)
      depot.pointee.head = block
    }
    cache.pointee.counts -= UInt64(Self.batch)
    depot.pointee.count += Self.batch
    latch.pointee.unlock()
  }

  /// Blocks that are in neither list. Exact only while no other thread uses a lock: for tests.
  var blocksInUse: Int {
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    var free = depot.pointee.count
    for thread in 0..<rl_thread_index_bound() { free += cache(thread).pointee.count }
    return depot.pointee.carved - free
  }

  /// Blocks ever taken from the system: constant in steady state. For tests.
  var blocksCarved: Int {
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    return depot.pointee.carved
  }
}

#if RANGELAND_CHECKS
  extension NodePool {
    /// Makes the calling thread's next takes fail, as if the system had no memory: for tests.
    ///
    /// - Parameters:
    ///   - after: takes that still succeed.
    ///   - count: takes that fail then.
    static func refuseTakes(after: Int, count: Int) {
      rl_tls_set(refusalWord, UInt64(count) << 32 | UInt64(after))
    }

    /// The thread-local word: takes to let pass in the low half, takes to refuse in the high half.
    private static let refusalWord: UInt32 = 7

    @usableFromInline static func isToRefuse() -> Bool {
      let word = rl_tls_get(refusalWord)
      if word >> 32 == 0 { return false }
      if word & 0xFFFF_FFFF != 0 {
        rl_tls_set(refusalWord, word - 1)
        return false
      }
      rl_tls_set(refusalWord, word - (1 << 32))
      return true
    }
  }
#endif
