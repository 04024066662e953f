// SPDX-License-Identifier: Apache-2.0
//
// What is known about one frame.
//
//   references  who may use the page: one per table entry that maps it, one of the page cache, one per pin
//   pins        long-lived users: a pinned page is copied at fork instead of shared
//   flags       dirty: the page of a file was written to; removed: its object has it no more
//   link        next frame of a free batch
//   object      what the page belongs to while it is mapped or cached, and where in it: the reverse map

import Synchronization

/// The number of a frame. 0 is the shared page of zeros, which is never counted and never freed.
typealias FrameNumber = UInt32

extension FrameNumber {
  /// The page of zeros that untouched anonymous memory reads from.
  @inline(__always) static var sharedZero: FrameNumber { 0 }
}

/// 32 bytes a frame. All zero is a valid free frame, so the table needs no initialisation.
struct FrameMetadata: ~Copyable {
  /// 0 = free. The one that drops it to 0 frees the frame. Partner: itself.
  let references: Atomic<UInt32>
  /// Pins; each also holds a reference.
  let pins: Atomic<UInt32>
  /// See `dirtyFlag`, `removedFlag`.
  let flags: Atomic<UInt32>
  /// Free frames: the next of the batch, 0 = last. Whoever owns the free frame touches it.
  var link: UInt32
  /// The reverse map. Set before the frame is installed or cached, cleared when it is freed; read under
  /// the latch of a page table that maps it or of the object's page cache. Not counted: an object
  /// outlives its mapped pages, because the records that map them hold its mappings.
  var object: UnsafeMutablePointer<MemoryObject>?
  /// Page index in `object`; in the first frame of a free batch: the next batch.
  var index: UInt64

  /// The page is being taken from its object: whoever has found it there and not mapped it yet does not.
  static var removedFlag: UInt32 { 2 }
  /// The page was written through a pin (Linux `PG_dirty`): survives unmapping.
  static var dirtyFlag: UInt32 { 1 }
}
