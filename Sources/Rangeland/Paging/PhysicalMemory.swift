// SPDX-License-Identifier: Apache-2.0
//
// The memory that address spaces share: frames, and the nodes of their data structures.
//
// Spaces on one `PhysicalMemory` can share pages and objects and compete for the same frames. The
// class is only the owner; hot code works on the pointers.

import SystemPackage

/// A limited number of page frames, and the node memory of the address spaces that use them.
///
/// Memory is reserved at once and committed by the operating system when it is first used. Several
/// address spaces may share one physical memory; it lives until the last of them is gone.
///
/// Safe to share between threads: all parts are set once, and what they point to synchronises
/// itself.
public final class PhysicalMemory: @unchecked Sendable {
  /// Node memory and epochs. Set once.
  let reclaimer: UnsafeMutablePointer<Reclaimer>
  /// Frames. Set once.
  let arena: UnsafeMutablePointer<FrameArena>
  /// Memory policies by number: spaces that share objects share their policies. A latch of their own.
  let policies: MemoryPolicies
  /// File objects whose pages are frames of this memory.
  let files = FileTable()

  /// Frames in 16 GiB.
  public static var defaultFrameLimit: Int { 4 << 20 }

  /// Reserves memory for `frameLimit` page frames of 4 KiB. The operating system gives it when it is first used, and gets it
  /// back when the last space and file object that use it have gone.
  ///
  /// - Parameter frameLimit: what spaces and file objects have together. Beyond it an access is an `AccessFault`, and a
  ///   call that needs a page throws.
  /// - Precondition: `0 < frameLimit < 2^32 - 64`.
  /// - Throws: `ENOMEM` when the operating system refuses the address space.
  public init(frameLimit: Int = PhysicalMemory.defaultFrameLimit) throws(Errno) {
    precondition(
      frameLimit > 0 && frameLimit < Int(UInt32.max) - 64,
      "PhysicalMemory: a memory has from 1 to 4,294,967,230 frames")
    guard let reclaimer = Reclaimer.make() else { throw Errno.noMemory }
    guard let arena = FrameArena.make(limit: UInt32(frameLimit), reclaimer: reclaimer) else {
      Reclaimer.destroy(reclaimer)
      throw Errno.noMemory
    }
    guard let policies = MemoryPolicies.make() else {
      FrameArena.destroy(arena)
      Reclaimer.destroy(reclaimer)
      throw Errno.noMemory
    }
    self.reclaimer = reclaimer
    self.arena = arena
    self.policies = policies
  }

  deinit {
    files.writer.stop()
    FrameArena.destroy(arena)
    Reclaimer.destroy(reclaimer)
  }

  /// Page frames that exist.
  public var frameLimit: Int { Int(arena.pointee.limit) }

  /// Page frames in use. Exact while no thread maps, faults or unmaps.
  public var framesInUse: Int { arena.usedCount() }
}
