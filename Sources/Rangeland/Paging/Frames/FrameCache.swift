// SPDX-License-Identifier: Apache-2.0
//
// A thread's free frames.
//
// Guarantee: a frame number is taken out of a slot exactly once, by the owner or by a thread that
//   recalls frames because the limit is near.
// Mechanism: a stack of atomic slots whose height only the owner knows. Taking is an exchange with 0,
//   so a thief needs no lock and the owner meets holes, which it skips; putting is a plain store, since
//   slots at and above the height are always 0 and thieves only ever write 0.
// Cost: one exchange to take, one store to put; never more than `capacity` frames.
// Source: Bonwick, "Magazines and Vmem" (2001), with the per-CPU lock replaced by slot exchanges.

import Synchronization

struct FrameCache: ~Copyable {
  /// Frames that one thread keeps at most.
  static var capacity: Int { 128 }
  /// Frames that a drop list collects before it must let go of them: see `FrameDropList`.
  static var dropCapacity: Int { 1024 }
  /// Drop lists with frames in them that one thread may have at a time.
  static var dropDepth: Int { 4 }

  /// `capacity` slots, 0 = empty. Partner: `FrameArena.recall`.
  let slots: UnsafeMutablePointer<Atomic<UInt32>>
  /// Slots at and above it are 0. Only the owner touches it.
  var height = 0
  /// `dropDepth` buffers of `dropCapacity` frame numbers. Only the owner touches them.
  let dropBuffers: UnsafeMutablePointer<UInt32>
  var dropBuffersInUse = 0

  init() {
    slots = UnsafeMutableRawPointer.allocate(
      byteCount: Self.capacity * MemoryLayout<UInt32>.stride, alignment: 128
    ).bindMemory(to: Atomic<UInt32>.self, capacity: Self.capacity)
    for i in 0..<Self.capacity { (slots + i).initialize(to: Atomic(0)) }
    dropBuffers = .allocate(capacity: Self.dropCapacity * Self.dropDepth)
  }

  deinit {
    slots.deinitialize(count: Self.capacity)
    slots.deallocate()
    dropBuffers.deallocate()
  }
}

// Not mutating methods of the cache: an inout access of the whole cache would cover the pointer that
// thieves read, and the thread sanitizer takes it for a write.
extension UnsafeMutablePointer where Pointee == ThreadContext {
  /// Takes the frame that was put last into the thread's cache; 0 = none left.
  @inline(__always)
  func takeFrame() -> UInt32 {
    var height = pointee.frames.height
    while height > 0 {
      height &-= 1
      // Acquires what the thread that freed the frame did to it (a slot may be refilled by its owner
      // only, but the frame may come from a batch of another thread).
      let frame = pointee.frames.slots[height].exchange(0, ordering: .acquiring)
      if frame != 0 {
        pointee.frames.height = height
        return frame
      }
    }
    pointee.frames.height = 0
    return 0
  }

  /// The frame that is likely taken next; 0 = none. A hint.
  @inline(__always)
  var nextFrame: UInt32 {
    let height = pointee.frames.height
    return height > 0 ? pointee.frames.slots[height &- 1].load(ordering: .relaxed) : 0
  }

  /// Puts a free frame into the thread's cache.
  ///
  /// - Precondition: the cache's height is below its capacity.
  @inline(__always)
  func putFrame(_ frame: UInt32) {
    let height = pointee.frames.height
    // Releases the frame's contents and metadata to a thief's exchange in `FrameArena.recall`.
    pointee.frames.slots[height].store(frame, ordering: .releasing)
    pointee.frames.height = height &+ 1
  }
}
