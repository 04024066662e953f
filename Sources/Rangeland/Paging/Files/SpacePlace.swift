// SPDX-License-Identifier: Apache-2.0
//
// What the reverse map needs of a space: where an object's pages stand in it.
//
// Lives until the space has taken all its mappings out of their objects, so whoever finds it through a mapping, under
// the latch of the object, may use it until it lets that go.

typealias SpacePlaceRef = UnsafeMutablePointer<SpacePlace>

struct SpacePlace {
  let tables: PageTables
  let accessors: AccessorTable
  let layout: LayoutRef
  let counters: SpaceCounters

  static func make(
    _ tables: PageTables, _ accessors: AccessorTable, _ layout: LayoutRef,
    _ counters: SpaceCounters
  ) -> SpacePlaceRef {
    let place = SpacePlaceRef.allocate(capacity: 1)
    place.initialize(
      to: SpacePlace(tables: tables, accessors: accessors, layout: layout, counters: counters))
    return place
  }

  static func destroy(_ place: SpacePlaceRef) {
    place.deinitialize(count: 1)
    place.deallocate()
  }

  /// Whether a page stands in a locked mapping. The thread is pinned.
  func isLocked(_ address: Address) -> Bool {
    layout.pointee.find(address)?.pointee.flags.contains(.locked) ?? false
  }

  /// Takes what a drop list took out of the page tables off the space's resident counters.
  func account(_ drops: borrowing FrameDropList, _ context: Context) {
    if drops.filePages | drops.sharedMemoryPages == 0 { return }
    counters.noteHighWater(context)
    LockMap.observe(.residency, .credit, .write)
    if drops.filePages != 0 { counters.add(.rssFile, -Int64(drops.filePages), context) }
    if drops.sharedMemoryPages != 0 {
      counters.add(.rssSharedMemory, -Int64(drops.sharedMemoryPages), context)
    }
    counters.removeResident(drops.residentPages, context)
  }
}
