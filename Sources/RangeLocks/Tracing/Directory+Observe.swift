// SPDX-License-Identifier: Apache-2.0
//
// Observing a directory: switching it on and off, and what the general ways tell.

import CRangeland
import Synchronization

extension Directory {
  /// Whether somebody observes. One look at the word that the caller has just looked at, on the general ways only.
  @inline(__always)
  var isObserved: Bool {
    #if RANGELAND_WITHOUT_TRACING
      false
    #else
      header.pointee.word.load(ordering: .relaxed) == WholeWord.observed
    #endif
  }

  /// Switches kinds of observation on or off. Requests that are under way may be observed in part.
  func observe(_ kinds: ObservationKinds, _ isOn: Bool) {
    #if !RANGELAND_WITHOUT_TRACING
      modeLatch.pointee.lock()
      defer { modeLatch.pointee.unlock() }
      var all = observation.kinds
      if isOn { all.formUnion(kinds) } else { all.subtract(kinds) }
      observation.kinds = all
      if all.isEmpty {
        if header.pointee.word.load(ordering: .relaxed) == WholeWord.observed {
          header.pointee.word.store(WholeWord.directory, ordering: .sequentiallyConsistent)
        }
      } else {
        leaveWholeLocked()
        // Only holders of the mode latch change the word while it says that the directory is open.
        header.pointee.word.store(WholeWord.observed, ordering: .sequentiallyConsistent)
        closeAllStripes()
      }
    #endif
  }

  /// Nobody enters a stripe without being observed. Who opens stripes looks at the word under the same latch before.
  private func closeAllStripes() {
    for index in 0..<Self.shardCount {
      let shard = shard(0, index: index)
      shard.lock(adding: 0)
      closeStripes(shard)
      shard.unlock(removing: 0)
    }
  }

  /// Notes when a request that nobody else can see yet begins, if that is wanted.
  @inline(__always)
  func noteSince(_ entry: EntryRef) {
    if isObserved { noteSinceSlow(entry) }
  }

  @inline(never)
  private func noteSinceSlow(_ entry: EntryRef) {
    if !observation.kinds.contains(.times) { return }
    entry.pointer.pointee.thread |= Entry.sinceBit
    entry.since = rl_monotonic_ns()
  }

  // MARK: Telling

  /// A request is about to look at the lock.
  func tellStarted(_ range: KeyRange, _ mode: LockMode) {
    observation.tell(
      .init(point: .started, range: range, mode: mode, isGranted: true, hold: 0))
  }

  /// A request was granted as `entry`, or gave up if that is nil.
  func tellEnded(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef?) {
    if let entry {
      let kinds = observation.kinds
      if kinds.contains(.acquisitions) { counters.add(.acquisitions) }
      // A bit that is set before the entry is linked says that the time means something.
      if entry.hasSince { entry.since = rl_monotonic_ns() }
    }
    tell(range, mode, entry)
  }

  private func tell(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef?) {
    observation.tell(
      .init(
        point: .acquired, range: range, mode: mode, isGranted: entry != nil,
        hold: entry?.number ?? 0))
  }

  /// A hold has another range or mode now.
  func tellChanged(_ entry: EntryRef) {
    if isObserved { tell(entry.range, entry.pointer.pointee.mode, entry) }
  }

  /// A hold is about to end.
  @inline(never)
  func tellReleased(_ entry: EntryRef) {
    observation.tell(
      .init(
        point: .released, range: entry.range, mode: entry.pointer.pointee.mode, isGranted: true,
        hold: entry.number))
  }

  /// A group that gave up is gone: it is told by its pieces.
  func tellEnded(_ pieces: UnsafeBufferPointer<RangeRequest>, _ group: EntryGroup?) {
    if let group {
      group.visitAll { tellEnded($0.range, $0.pointer.pointee.mode, $0) }
    } else {
      for piece in pieces { tellEnded(piece.range, piece.mode, nil) }
    }
  }
}

extension EntryRef {
  /// What tells it from others that hold at the same time.
  fileprivate var number: UInt64 { UInt64(UInt(bitPattern: raw)) }
}
