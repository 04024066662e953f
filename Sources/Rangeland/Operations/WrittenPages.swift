// SPDX-License-Identifier: Apache-2.0
//
// Which pages were written to.
//
// Range: [start, end), for reading: each page is told as it was at an instant of the call.
// Linux: fs/proc/task_mmu.c `PAGEMAP_SCAN` with `PAGE_IS_WRITTEN` and `PM_SCAN_WP_MATCHING`.

import SystemPackage

extension AddressSpace {
  /// The pages of a range that this space has written to since the last call that reset them, or since they were first
  /// mapped, of whatever memory: what an emulator has to draw again, a migration to send again.
  ///
  /// The child of a fork begins with what its parent tells of private memory, and with nothing of shared memory.
  /// What was written through another space, or through a page that is no longer mapped (unmapped, thrown away by advice,
  /// gone with the end of its file), is not told. Takes the space lock for reading over the range.
  ///
  /// - Parameters:
  ///   - range: page aligned.
  ///   - resetting: the pages count as not written from then on. A store that runs beside the call is told by it or by
  ///     the next one.
  /// - Returns: the pages, ascending, joined to ranges.
  /// - Throws: `EINVAL` for an unaligned range, `ENOMEM` for one that leaves the space.
  public func writtenPages(
    in range: AddressRange, resetting: Bool = false
  ) throws(Errno) -> [AddressRange] {
    let before = LockMap.enter(.written)
    defer { LockMap.leave(before) }
    guard range.start.isPageAligned, range.end.isPageAligned else { throw .invalidArgument }
    guard range.end <= Address.spaceEnd else { throw .noMemory }
    let hold = lock.read(range, .written)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    park.pass(.written)
    LockMap.observe(.pageTableEntry, hold, range)
    var result: [AddressRange] = []
    func add(_ page: Address) {
      if let last = result.last, last.end == page {
        result[result.count - 1] = AddressRange(start: last.start, end: page + Address.pageSize)
      } else {
        result.append(AddressRange(pageOf: page))
      }
    }
    if resetting {
      var drops = FrameDropList(arena, accessors, context)
      tables.takeWritten(range, into: &drops, context, add)
      drops.shootdown()
      drops.release()
    } else {
      tables.forEachEntry(in: range, context) { page, entry in
        if entry.isPresent && entry.isDirty { add(page) }
      }
    }
    return result
  }
}
