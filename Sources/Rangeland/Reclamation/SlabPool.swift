// SPDX-License-Identifier: Apache-2.0
//
// The shared half of the slab allocator: one pool per node kind.
//
// Guarantee: a node given out is nobody else's; failure is reported, never trapped.
// Mechanism: threads take and give whole batches under a latch; chunks come from the kernel.
// Cost: one latch per `SlabClass.batch` nodes; a chunk of 1 MiB when the pool runs dry.
// Source: Bonwick, "The Slab Allocator" (1994) and "Magazines and Vmem" (2001).

import CRangeland
import RangeLocks

/// Batches of free nodes of one kind, and the chunk that new ones are cut from.
struct SlabPool: ~Copyable {
  /// Guards everything below.
  let latch = Latch()
  var batches: UnsafeMutableRawPointer?
  var bump: UnsafeMutableRawPointer?
  var bumpEnd: UnsafeMutableRawPointer?
  /// Chunks, linked through their first word, released with the pool.
  var chunks: UnsafeMutableRawPointer?
  /// Nodes ever cut from chunks: for tests that prove that nothing leaks.
  var nodesCreated = 0

  static var chunkBytes: Int { 1 << 20 }
}

// Methods of the pointer: a mutating method would access the latch with everything else before it is
// locked, and the thread sanitizer takes that for a race.
extension UnsafeMutablePointer where Pointee == SlabPool {
  /// Takes a chain of up to `batch` nodes: the first node and the count, or `nil` without memory.
  func takeBatch(
    _ kind: SlabClass
  ) -> (first: UnsafeMutableRawPointer, count: Int)? {
    pointee.latch.lock()
    defer { pointee.latch.unlock() }
    if let first = pointee.batches {
      pointee.batches = SlabHeader.of(first).pointee.nextBatch
      return (first, kind.batch)
    }
    var first: UnsafeMutableRawPointer?
    var count = 0
    let stride = kind.stride
    while count < kind.batch {
      guard let cut = cut(stride) else { break }
      let node = cut + SlabHeader.byteCount
      SlabHeader.of(node).initialize(to: SlabHeader(next: first, nextBatch: nil))
      first = node
      count += 1
    }
    pointee.nodesCreated = pointee.nodesCreated + count
    guard let first else { return nil }
    return (first, count)
  }

  /// Gives back a chain of exactly `SlabClass.batch` nodes.
  func giveBatch(_ first: UnsafeMutableRawPointer) {
    pointee.latch.lock()
    SlabHeader.of(first).pointee.nextBatch = pointee.batches
    pointee.batches = first
    pointee.latch.unlock()
  }

  /// The next `stride` bytes of the current chunk, or of a new one.
  private func cut(_ stride: Int) -> UnsafeMutableRawPointer? {
    if let bump = pointee.bump, let bumpEnd = pointee.bumpEnd, bump + stride <= bumpEnd {
      pointee.bump = bump + stride
      return bump
    }
    LockOrder.assertNoLeafHeld("a call to the kernel for memory")
    guard let chunk = rl_reserve(SlabPool.chunkBytes) else { return nil }
    chunk.storeBytes(of: pointee.chunks, as: UnsafeMutableRawPointer?.self)
    pointee.chunks = chunk
    // The first 128 bytes hold the chunk link.
    pointee.bump = chunk + 128 + stride
    pointee.bumpEnd = chunk + SlabPool.chunkBytes
    return chunk + 128
  }

  /// Returns all chunks to the kernel. Every node of the pool becomes invalid.
  func releaseChunks() {
    var chunk = pointee.chunks
    while let current = chunk {
      chunk = current.load(as: UnsafeMutableRawPointer?.self)
      _ = rl_release(current, SlabPool.chunkBytes)
    }
    pointee.chunks = nil
    pointee.batches = nil
    pointee.bump = nil
  }
}
