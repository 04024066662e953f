// SPDX-License-Identifier: Apache-2.0
//
// Notes of the whole space: the markers of a program (M5) and a word for its owner (M6).
//
// Range: the whole space, for writing.
// Linux: kernel/sys.c `prctl_set_mm`, `prctl_set_mm_map`.

import Synchronization
import SystemPackage

extension AddressSpace {
  /// The markers, all of one instant. Takes no lock of the space.
  public var markers: ProgramMarkers {
    notes.read(heap)
  }

  /// Sets all markers (`prctl` with `PR_SET_MM_MAP`), the heap with them. No reader sees some of them old and some
  /// new.
  ///
  /// Takes the space lock for writing over the whole space.
  ///
  /// - Throws: `EINVAL` for a marker below 4,096 or from the end of the space on, for code that is empty, for
  ///   another pair that ends before it begins, and for data and heap beyond `Limits.data`. Then nothing has
  ///   changed.
  public func setMarkers(_ markers: ProgramMarkers) throws(Errno) {
    try setMarkers { _, _ throws(Errno) in markers }
  }

  /// Sets one marker (`prctl` with `PR_SET_MM_START_CODE` and the like). The others count too: until all were set
  /// together, as a program loader does, one alone is refused.
  ///
  /// Takes the space lock for writing over the whole space.
  ///
  /// - Throws: `EINVAL` as `setMarkers`; `EFAULT` when no mapping is at `address` or above, for the stack, the
  ///   arguments and the environment.
  public func setMarker(_ marker: ProgramMarker, to address: Address) throws(Errno) {
    try setMarkers { (old, context) throws(Errno) in
      var new = old
      new[marker] = address
      try new.check(dataLimit: self.limits.data)
      if marker.needsMapping && self.layout.pointee.findNext(address) == nil { throw .badAddress }
      return new
    }
  }

  private func setMarkers(
    _ change: (ProgramMarkers, Context) throws(Errno) -> ProgramMarkers
  ) throws(Errno) {
    let before = LockMap.enter(.configure)
    defer { LockMap.leave(before) }
    let hold = lock.write(.wholeSpace, .configure)
    let context = reclaimer.context()
    context.pin()
    defer { context.unpin() }
    park.pass(.configure)
    LockMap.observe(.markers, hold, .wholeSpace)
    // Nobody else changes them while the whole space is held; readers get all or nothing.
    let new = try change(markers, context)
    try new.check(dataLimit: limits.data)
    heap.dataBytes.store(new.endData - new.startData, ordering: .relaxed)
    notes.write(new, heap)
  }

  /// A word that means something to the owner of the space only, 0 in a new one (Linux kept `mm->bd_addr` so, the
  /// table of Intel's bounds registers, until 5.6). What is made by `fork` begins with 0 too.
  ///
  /// Reading takes no lock; setting takes the space lock for writing over the whole space, so that it changes
  /// beside no operation.
  public var opaqueWord: UInt64 {
    get { opaque.load(ordering: .acquiring) }
    set {
      let before = LockMap.enter(.configure)
      defer { LockMap.leave(before) }
      let hold = lock.write(.wholeSpace, .configure)
      park.pass(.configure)
      LockMap.observe(.opaqueWord, hold, .wholeSpace)
      opaque.store(newValue, ordering: .releasing)
    }
  }
}
