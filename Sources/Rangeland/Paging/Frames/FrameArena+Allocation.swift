// SPDX-License-Identifier: Apache-2.0
//
// Taking and freeing frames, and the counts that decide when a frame is free.

import CRangeland
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

extension UnsafeMutablePointer where Pointee == FrameArena {
  /// A frame with one reference; `nil` when every frame is in use.
  ///
  /// - Parameter zeroed: fills the page with zeros. Pages that a space can see always are.
  /// - Complexity: one exchange; near the limit a walk over the caches of all threads.
  @inline(__always)
  func allocate(zeroed: Bool, _ context: Context) -> FrameNumber? {
    #if RANGELAND_CHECKS
      if context.failsByHook() { return nil }
    #endif
    var frame = context.takeFrame()
    if frame == 0 {
      frame = allocateSlow(context)
      if frame == 0 { return nil }
    }
    #if RANGELAND_CHECKS
      precondition(
        pointee.metadata[Int(frame)].references.load(ordering: .relaxed) == 0
          && pointee.metadata[Int(frame)].object == nil, "FrameArena: a free frame is in use")
    #endif
    // Relaxed: nobody else knows the frame; publishing it in a table entry releases.
    pointee.metadata[Int(frame)].references.store(1, ordering: .relaxed)
    // The row of the next frame comes while this page is filled.
    rl_prefetch(pointee.metadata + Int(context.nextFrame))
    if zeroed { memset(pointee.bytes(of: frame), 0, 4096) }
    return frame
  }

  /// One more user of the frame. The caller has a reference, or the latch of a table that has one.
  @inline(__always)
  func retain(_ frame: FrameNumber) {
    guard frame != .sharedZero else { return }
    let old = pointee.metadata[Int(frame)].references.add(1, ordering: .relaxed).oldValue
    assert(old > 0, "FrameArena.retain: the frame is free")
  }

  /// Marks a page that its object loses, until the frame is free. The object has a reference.
  func markRemoved(_ frame: FrameNumber) {
    // Partner: `isRemoved`. See `PageTables.latchLeafInOrder`.
    pointee.metadata[Int(frame)].flags.bitwiseOr(
      FrameMetadata.removedFlag, ordering: .sequentiallyConsistent)
  }

  /// Whether the page was marked. The caller has a reference.
  @inline(__always)
  func isRemoved(_ frame: FrameNumber) -> Bool {
    pointee.metadata[Int(frame)].flags.load(ordering: .sequentiallyConsistent)
      & FrameMetadata.removedFlag != 0
  }

  /// One user less; the last one frees the frame.
  @inline(__always)
  func release(_ frame: FrameNumber, _ context: Context) {
    guard frame != .sharedZero else { return }
    let row = pointee.metadata + Int(frame)
    // The only reference is ours, and only a holder of a reference can add one: no exchange needed.
    // Acquires what earlier users did before they released.
    if row.pointee.references.load(ordering: .acquiring) != 1 {
      let new = row.pointee.references.subtract(1, ordering: .acquiringAndReleasing).newValue
      assert(new != UInt32.max, "FrameArena.release: the frame is free")
      if new != 0 { return }
    } else {
      row.pointee.references.store(0, ordering: .relaxed)
    }
    row.pointee.object = nil
    row.pointee.flags.store(0, ordering: .relaxed)
    if context.pointee.frames.height == FrameCache.capacity { shed(context) }
    context.putFrame(frame)
  }

  /// References to the frame now. Exact for whoever holds the only one.
  @inline(__always)
  func references(_ frame: FrameNumber) -> UInt32 {
    // Acquires what a user that has let go did to the page.
    pointee.metadata[Int(frame)].references.load(ordering: .acquiring)
  }

  /// Whether one page table maps the frame and nobody else has it, pins aside: then its VMA may write to it (Linux
  /// `PageAnonExclusive`). Exact under the latch of that table.
  @inline(__always)
  func isExclusive(_ frame: FrameNumber) -> Bool {
    let row = pointee.metadata + Int(frame)
    // Relaxed: a pin that goes meanwhile only makes the answer no.
    let pins = row.pointee.pins.load(ordering: .relaxed)
    // Acquires what a user that has let go did to the page.
    return row.pointee.references.load(ordering: .acquiring) == pins &+ 1
  }

  /// A reference that outlives mappings (Linux `FOLL_PIN`). The caller has a reference, or the latch of a
  /// table that has one.
  func pin(_ frame: FrameNumber) {
    guard frame != .sharedZero else { return }
    retain(frame)
    pointee.metadata[Int(frame)].pins.add(1, ordering: .relaxed)
  }

  /// Gives up a pin. That a page of a file was written to is told to the file before: see `AddressSpace.unpin`.
  func unpin(_ frame: FrameNumber, _ context: Context) {
    guard frame != .sharedZero else { return }
    let row = pointee.metadata + Int(frame)
    let old = row.pointee.pins.subtract(1, ordering: .releasing).oldValue
    precondition(old > 0, "FrameArena.unpin: the frame is not pinned")
    release(frame, context)
  }

  /// Whether somebody pins the frame. Exact under the latch of the only table that maps it.
  func isPinned(_ frame: FrameNumber) -> Bool {
    pointee.metadata[Int(frame)].pins.load(ordering: .acquiring) != 0
  }

  /// Names what the page belongs to, before it is installed or cached.
  @inline(__always)
  func setOwner(
    of frame: FrameNumber, _ object: UnsafeMutablePointer<MemoryObject>?, index: UInt64
  ) {
    assert(frame != .sharedZero, "the shared zero page belongs to nobody")
    pointee.metadata[Int(frame)].object = object
    pointee.metadata[Int(frame)].index = index
  }
}

extension UnsafeMutablePointer where Pointee == ThreadContext {
  #if RANGELAND_CHECKS
    /// Whether the allocation that starts now is the one that a test wants to fail.
    func failsByHook() -> Bool {
      let hook = pointee.reclaimer.pointee.allocationsUntilFailure.load(ordering: .relaxed)
      if hook < 0 { return false }
      return pointee.reclaimer.pointee.allocationsUntilFailure.subtract(
        1, ordering: .relaxed
      ).newValue < 0
    }
  #endif
}
