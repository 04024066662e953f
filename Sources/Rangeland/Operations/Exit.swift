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
    do {
      try removeAll(.wholeSpace, lock.write(.wholeSpace, .exit))
    } catch {
      // Removing everything cuts nothing, so it needs no records.
      preconditionFailure("AddressSpace: \(error) while the space was taken down")
    }
    let context = reclaimer.context()
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
