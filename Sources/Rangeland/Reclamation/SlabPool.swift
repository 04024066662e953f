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

  /// Takes a chain of up to `batch` nodes: the first node and the count, or `nil` without memory.
  mutating func takeBatch(
    _ kind: SlabClass
  ) -> (first: UnsafeMutableRawPointer, count: Int)? {
    latch.lock()
    defer { latch.unlock() }
    if let first = batches {
      batches = SlabHeader.of(first).pointee.nextBatch
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
    nodesCreated += count
    guard let first else { return nil }
    return (first, count)
  }

  /// Gives back a chain of exactly `SlabClass.batch` nodes.
  mutating func giveBatch(_ first: UnsafeMutableRawPointer) {
    latch.lock()
    SlabHeader.of(first).pointee.nextBatch = batches
    batches = first
    latch.unlock()
  }

  /// The next `stride` bytes of the current chunk, or of a new one.
  private mutating func cut(_ stride: Int) -> UnsafeMutableRawPointer? {
    if let bump, let bumpEnd, bump + stride <= bumpEnd {
      self.bump = bump + stride
      return bump
    }
    guard let chunk = rl_reserve(Self.chunkBytes) else { return nil }
    chunk.storeBytes(of: chunks, as: UnsafeMutableRawPointer?.self)
    chunks = chunk
    // The first 128 bytes hold the chunk link.
    bump = chunk + 128 + stride
    bumpEnd = chunk + Self.chunkBytes
    return chunk + 128
  }

  /// Returns all chunks to the kernel. Every node of the pool becomes invalid.
  mutating func releaseChunks() {
    var chunk = chunks
    while let current = chunk {
      chunk = current.load(as: UnsafeMutableRawPointer?.self)
      _ = rl_release(current, Self.chunkBytes)
    }
    chunks = nil
    batches = nil
    bump = nil
  }
}
