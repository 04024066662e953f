// SPDX-License-Identifier: Apache-2.0
//
// A reader that becomes a writer.
//
// Guarantee: no writer comes between; readers of the keys that hold are waited for, others wait. An upgrade that fails, or
// gives up, leaves the hold as it was, held all the time.
// Mechanism: the mode changes under the latches of everything that could conflict, as for a request. The hold stays in
// its shards; what waits, on the stack of a reader, is a second entry that is in no shard. So one that gives up is left
// there like any request, and the hold goes on. See "Changing a hold" in docs/range-lock.md.
// Cost: as an acquire; in whole-lock mode one latch. A block or two while it waits.

import CRangeland
import Synchronization

extension EntryRef {
  /// Of the entry of an upgrade that waits: the hold. It has no link, so it lies in the place of one.
  var upgradedHold: EntryRef {
    EntryRef(raw.load(fromByteOffset: 24, as: UnsafeMutableRawPointer.self))
  }

  fileprivate func setUpgradedHold(_ hold: EntryRef) {
    raw.storeBytes(of: hold.raw, toByteOffset: 24, as: UnsafeMutableRawPointer.self)
  }
}

extension Directory {
  /// Makes a granted reader a writer if there is no other reader of its keys.
  func tryUpgrade(_ entry: EntryRef) -> Bool {
    if upgradeEasily(entry) { return true }
    let isObserved = isObserved
    if isObserved { tellStarted(entry.range, .write) }
    let isWriter = upgradeOnce(entry, nil) == .granted
    if isObserved { tellEnded(entry.range, .write, isWriter ? entry : nil) }
    return isWriter
  }

  /// Makes a granted upgradeable reader a writer: waits until other readers of its keys are gone, and keeps new ones out.
  /// False when the deadline passed first.
  func upgrade(
    _ entry: EntryRef, deadline: UInt64, _ note: HoldNote, _ site: CallSite
  ) -> Bool {
    if upgradeEasily(entry) {
      note.change(entry.range, .write)
      return true
    }
    let isObserved = isObserved
    if isObserved { tellStarted(entry.range, .write) }
    let isWriter = upgradePatiently(entry, deadline: deadline, note, site)
    note.change(entry.range, entry.pointer.pointee.mode)
    if isObserved { tellEnded(entry.range, .write, isWriter ? entry : nil) }
    return isWriter
  }

  /// The ways that need no look around; false decides nothing.
  func upgradeEasily(_ entry: EntryRef) -> Bool {
    // In whole-lock mode we are alone.
    entry.pointer.pointee.mode == .write
      || changeInWholeMode(entry) { $0.pointer.pointee.mode = .write }
  }

  private func upgradePatiently(
    _ entry: EntryRef, deadline: UInt64, _ note: HoldNote, _ site: CallSite
  ) -> Bool {
    while true {
      guard let waiter = makeUpgrade(of: entry) else {
        if deadline != .max, rl_monotonic_ns() >= deadline { return false }
        rl_yield()
        continue
      }
      if upgradeOnce(entry, waiter) == .granted {
        waiter.recycle(pool)
        return true
      }
      counters.add(.contended)
      let waitNote = noteUpgrade(entry, of: note, site, canGiveUp: deadline != .max)
      let isGranted = wait(waiter, deadline: deadline)
      waitNote.end()
      if isGranted { endUpgrade(entry, waiter) }
      return isGranted
    }
  }

  /// The entry that waits for `entry` to become a writer, in no list yet; nil when there is no memory now.
  func makeUpgrade(of entry: EntryRef) -> EntryRef? {
    guard let waiter = pool.take().map(EntryRef.init) else { return nil }
    let needsExtra = entry.pointer.pointee.shape & 3 != 1
    let extra = needsExtra ? pool.take() : nil
    if needsExtra, extra == nil {
      pool.give(waiter.raw)
      return nil
    }
    // The flag says what it is to whoever looks around for it, or takes it back.
    waiter.initialize(entry.range, .write, token: Entry.upgrading | 1)
    waiter.pointer.pointee.shape = entry.pointer.pointee.shape
    waiter.setSecondBlock(extra)
    waiter.setUpgradedHold(entry)
    return waiter
  }

  /// The upgrade was granted: the hold is a writer's like any other.
  func endUpgrade(_ entry: EntryRef, _ waiter: EntryRef) {
    counters.add(.handOffs)
    entry.pointer.pointee.state.store(0, ordering: .relaxed)
    waiter.recycle(pool)
  }

  /// Makes `entry` a writer, or lets `waiter` wait for that. Without a waiter it is refused if there is another reader.
  func upgradeOnce(_ entry: EntryRef, _ waiter: EntryRef?) -> Outcome {
    let range = entry.range
    let level = entry.pointer.pointee.level
    let homes = homes(level, range)
    // As in `acquireSlow`; our counts have been up since we were granted.
    var latched = occupiedCoarser(level, range)
    while true {
      lockCoarser(latched, range)
      homes.lock(adding: 0)
      let late = occupiedCoarser(level, range) & ~latched
      if late == 0 { break }
      homes.unlock(removing: 0)
      unlockCoarser(latched, range)
      latched |= late
    }
    let before = entry.pointer.pointee.mode
    // The flag tells other upgrades that we hold although our count is not zero. Nobody else changes the state
    // of an entry that holds. Without a stamp we are in front of all that wait.
    entry.pointer.pointee.state.store(Entry.upgrading | 1, ordering: .relaxed)
    setMode(entry, .write, homes)
    var examination = Examination(self, waiter ?? entry, waiter == nil ? .tryUpgrade : .upgrade)
    // A try examines with the mode that it has now, as a waiter does.
    examineAll(latched, level, homes, &examination)
    let isQueued = examination.isOver && waiter != nil
    var waiting: UnsafeMutableRawPointer?
    if !isQueued {
      entry.pointer.pointee.state.store(0, ordering: .relaxed)
      if examination.isOver {
        setMode(entry, before, homes)
        waiting = entry.takeDependents()
      }
    }
    homes.unlock(removing: 0)
    unlockCoarser(latched, range)
    if isQueued { return .queued }
    if !examination.isOver { return .granted }
    // Those that met a writer here for a moment.
    letGoUnblocked(entry, waiting)
    return .refused
  }

  /// Takes back an upgrade that waits: its hold reads again, and who waited only for the writer enters. False if the grant
  /// came first.
  func takeBackUpgrade(_ waiter: EntryRef) -> Bool {
    let entry = waiter.upgradedHold
    let homes = homes(entry.pointer.pointee.level, entry.range)
    // All home latches at once: nobody sees a writer in one shard and a reader in the other.
    homes.lock(adding: 0)
    let isTakenBack = renounce(waiter)
    var waiting: UnsafeMutableRawPointer?
    if isTakenBack {
      setMode(entry, .upgradeableRead, homes)
      waiting = entry.takeDependents()
      entry.pointer.pointee.state.store(0, ordering: .relaxed)
    }
    homes.unlock(removing: 0)
    if !isTakenBack { return false }
    // From here on only conflicts with the reader queue behind it.
    letGoUnblocked(entry, waiting)
    waiter.drop(pool)
    return true
  }
}
