// SPDX-License-Identifier: Apache-2.0
//
// The end of a space. Nobody else uses it any more: this runs from its deinitialiser.
//
// Range: the whole space, for writing.
// Linux: mm/mmap.c `exit_mmap`.

extension AddressSpace {
  /// Unmaps everything and gives all memory back.
  func exit() {
    let before = LockMap.enter(.exit)
    defer { LockMap.leave(before) }
    let context = reclaimer.context()
    do {
      try removeAll(.wholeSpace, lock.write(.wholeSpace, .exit))
    } catch {
      // Not even a leaf's block: what is left goes without one, and its pages with their tables.
      LayoutTree.abandon(layout, context)
    }
    memory.files.unregister(identity)
    memory.files.settle(context)
    SpacePlace.destroy(place)
    tables.destroy(arena, context)
    accessors.destroy()
    counters.destroy()
    LayoutTree.destroy(layout)
    files.release()
    lock.deinitialize(count: 1)
    lock.deallocate()
  }
}
