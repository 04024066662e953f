// SPDX-License-Identifier: Apache-2.0
//
// Changing a hold: fewer keys, a weaker mode, a stronger mode.
//
// Guarantee: nobody sees a change half done; who is no longer blocked is granted; who became a conflict waits
// behind, or is waited for.
// Mechanism: the change happens under all home latches, an upgrade under the latches of everything that could
// conflict, as a request. See "Changing a hold" in docs/range-lock.md.
// Cost: as an acquire; in whole-lock mode one latch.

import CRangeland
import Synchronization

extension Directory {
  /// Makes the mode of a granted request weaker; those that wait for nobody else enter.
  func downgrade(_ entry: EntryRef, to mode: LockMode) {
    if entry.pointer.pointee.mode.rawValue <= mode.rawValue { return }
    if changeInWholeMode(entry, { $0.pointer.pointee.mode = mode }) { return }
    // All home latches at once: nobody sees a writer in one shard and a reader in the other.
    let homes = homes(entry.pointer.pointee.level, entry.range)
    homes.lock(adding: 0)
    setMode(entry, mode, homes)
    let waiting = entry.takeDependents()
    homes.unlock(removing: 0)
    // From here on only conflicts with the new mode queue behind us.
    letGoUnblocked(entry, waiting)
    tellChanged(entry)
  }

  /// Gives up the keys of a granted request outside `range`, which is part of its range.
  func shrink(_ entry: EntryRef, to range: KeyRange) {
    if entry.range == range { return }
    if changeInWholeMode(entry, { $0.setRange(range) }) { return }
    let level = entry.pointer.pointee.level
    let old = homes(level, entry.range)
    let new = homes(level, range)
    old.lock(adding: 0)
    old.lower.tree.pointee.remove(entry.link0)
    if let upper = old.upper { upper.tree.pointee.remove(entry.link1) }
    if let middle = old.middle { middle.tree.pointee.remove(entry.link2) }
    entry.setRange(range)
    // A stamp is where the number of homes says; a hold needs none.
    entry.pointer.pointee.state.bitwiseAnd(~Entry.stamped, ordering: .relaxed)
    let extra = entry.tail.pointee.extra
    publish(entry, level, new)
    let waiting = entry.takeDependents()
    // A shard that is home no longer loses one; zero publishes that the keys are free.
    old.unlock { new.contains($0) ? 0 : 1 }
    if old.upper != nil, new.upper == nil, let extra, extra != adoptedExtra { pool.give(extra) }
    // From here on only who wants the keys that are left queues behind us.
    letGoUnblocked(entry, waiting)
    tellChanged(entry)
  }

  /// Makes a granted reader a writer: waits until other readers of its keys are gone, and keeps new ones out.
  /// With `mayWait` false it fails if there is another reader.
  ///
  /// - Precondition: `mayWait` only for a hold that is `.upgradeableRead` (or a writer already).
  func upgrade(_ entry: EntryRef, mayWait: Bool) -> Bool {
    if entry.pointer.pointee.mode == .write { return true }
    // In whole-lock mode we are alone.
    if changeInWholeMode(entry, { $0.pointer.pointee.mode = .write }) { return true }
    let isObserved = isObserved
    if isObserved { tellStarted(entry.range, .write) }
    let isWriter = upgradePatiently(entry, mayWait: mayWait)
    if isObserved { tellEnded(entry.range, .write, isWriter ? entry : nil) }
    return isWriter
  }

  private func upgradePatiently(_ entry: EntryRef, mayWait: Bool) -> Bool {
    while true {
      switch upgradeOnce(entry, mayWait: mayWait) {
      case .granted: return true
      case .refused, .moved: return false
      case .queued:
        counters.add(.contended)
        _ = wait(entry, deadline: .max)
        counters.add(.handOffs)
        entry.pointer.pointee.state.bitwiseAnd(~Entry.upgrading, ordering: .relaxed)
        return true
      case .noMemory:
        if !mayWait { return false }
        rl_yield()
      }
    }
  }

  private func upgradeOnce(_ entry: EntryRef, mayWait: Bool) -> Outcome {
    let range = entry.range
    let level = entry.pointer.pointee.level
    let homes = homes(level, range)
    if homes.upper != nil, entry.tail.pointee.extra == nil {
      guard let block = pool.take() else { return .noMemory }
      entry.setSecondBlock(block)
    }
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
    var examination = Examination(self, entry, mayWait ? .upgrade : .tryUpgrade)
    examineAll(latched, level, homes, &examination)
    let isQueued = examination.isOver && mayWait
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

  /// Changes the mode and what the trees know of it. Needs the home latches.
  private func setMode(_ entry: EntryRef, _ mode: LockMode, _ homes: Homes) {
    entry.pointer.pointee.mode = mode
    homes.lower.tree.pointee.refresh(entry.link0)
    if let upper = homes.upper { upper.tree.pointee.refresh(entry.link1) }
    if let middle = homes.middle { middle.tree.pointee.refresh(entry.link2) }
  }
}
