// SPDX-License-Identifier: Apache-2.0
//
// Physical memory: a limited number of frames, counted.
//
// Guarantee: a frame is given out to one owner at a time; allocation is refused only if no frame was
//   free throughout the call.
// Mechanism: threads take and free frames in caches of their own; batches of 64 move between the
//   caches and 8 striped lists; frames that were never used are cut from the end of the arena. Near the
//   limit the frames in other threads' caches are recalled, one exchange each, while all stripes are
//   latched, so that no frame can hide in a move between a cache and a list.
// Cost: one exchange to allocate and none to free in steady state; 4 KiB are zeroed on request.
// Source: Bonwick, "Magazines and Vmem" (2001); Linux mm/page_alloc.c, per-CPU page lists.

import CRangeland
import RangeLocks
import Synchronization

struct FrameArena: ~Copyable {
  /// Frames moved between a thread's cache and the shared lists at a time.
  static var batch: Int { 64 }
  /// Shared lists.
  static var stripeCount: Int { 8 }
  /// Distance between stripes in bytes.
  static var stripeSpacing: Int { 128 }

  /// Frame 0. Aligned to 2 MiB.
  let base: UnsafeMutableRawPointer
  /// One row per frame, zeroed and committed at first use.
  let metadata: UnsafeMutablePointer<FrameMetadata>
  /// Frames that can be given out: numbers 1...limit.
  let limit: UInt32
  /// Next number never given out. Partner: itself.
  let virgin = Atomic<UInt32>(1)
  /// `stripeCount` lists, `stripeSpacing` bytes apart.
  let stripes: UnsafeMutableRawPointer
  let reclaimer: UnsafeMutablePointer<Reclaimer>

  private let reserved: UnsafeMutableRawPointer
  private let reservedBytes: Int
  private let metadataBytes: Int

  /// A list of batches of free frames.
  struct Stripe: ~Copyable {
    /// Guards the list; a leaf of the lock order.
    let latch = Latch()
    /// First frame of the first batch, 0 = none. Written under the latch; read without it as a hint.
    let first = Atomic<UInt32>(0)
  }

  /// Makes an arena; `nil` when the kernel refuses the address space.
  static func make(
    limit: UInt32, reclaimer: UnsafeMutablePointer<Reclaimer>
  ) -> UnsafeMutablePointer<FrameArena>? {
    let huge = 2 << 20
    let bytes = (Int(limit) + 1) * 4096 + huge
    let metadataBytes = (Int(limit) + 1) * MemoryLayout<FrameMetadata>.stride
    guard let reserved = rl_reserve(bytes) else { return nil }
    guard let table = rl_reserve(metadataBytes) else {
      _ = rl_release(reserved, bytes)
      return nil
    }
    let base = UnsafeMutableRawPointer(
      bitPattern: (UInt(bitPattern: reserved) + UInt(huge) - 1) & ~UInt(huge - 1))!
    // Only a hint: without huge pages everything works, slower.
    _ = madvise(base, bytes - huge, MADV_HUGEPAGE)
    let arena = UnsafeMutablePointer<FrameArena>.allocate(capacity: 1)
    arena.initialize(
      to: FrameArena(
        base: base, metadata: table.bindMemory(to: FrameMetadata.self, capacity: Int(limit) + 1),
        limit: limit, reclaimer: reclaimer, reserved: reserved, reservedBytes: bytes,
        metadataBytes: metadataBytes))
    return arena
  }

  private init(
    base: UnsafeMutableRawPointer, metadata: UnsafeMutablePointer<FrameMetadata>, limit: UInt32,
    reclaimer: UnsafeMutablePointer<Reclaimer>, reserved: UnsafeMutableRawPointer,
    reservedBytes: Int, metadataBytes: Int
  ) {
    self.base = base
    self.metadata = metadata
    self.limit = limit
    self.reclaimer = reclaimer
    self.reserved = reserved
    self.reservedBytes = reservedBytes
    self.metadataBytes = metadataBytes
    stripes = .allocate(byteCount: Self.stripeCount * Self.stripeSpacing, alignment: 128)
    for i in 0..<Self.stripeCount {
      (stripes + i * Self.stripeSpacing).initializeMemory(as: Stripe.self, to: Stripe())
    }
  }

  /// Gives the memory back. Nobody may use the arena or a frame of it any more.
  static func destroy(_ arena: UnsafeMutablePointer<FrameArena>) {
    _ = rl_release(arena.pointee.reserved, arena.pointee.reservedBytes)
    _ = rl_release(UnsafeMutableRawPointer(arena.pointee.metadata), arena.pointee.metadataBytes)
    arena.pointee.stripes.deallocate()
    arena.deinitialize(count: 1)
    arena.deallocate()
  }

  /// List `i`, taken modulo the number of lists.
  @inline(__always)
  borrowing func stripe(_ i: Int) -> UnsafeMutablePointer<Stripe> {
    (stripes + (i & (Self.stripeCount - 1)) * Self.stripeSpacing)
      .assumingMemoryBound(to: Stripe.self)
  }

  /// The first byte of a frame.
  @inline(__always)
  borrowing func bytes(of frame: FrameNumber) -> UnsafeMutableRawPointer {
    base + Int(frame) << 12
  }
}
