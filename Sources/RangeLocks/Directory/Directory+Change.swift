// SPDX-License-Identifier: Apache-2.0
//
// Changing a hold: fewer keys, a weaker mode. For a stronger one see Directory+Upgrade.swift.
//
// Guarantee: nobody sees a change half done; who is no longer blocked is granted.
// Mechanism: the change happens under all home latches. See "Changing a hold" in docs/range-lock.md.
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

  /// Changes the mode and what the trees know of it. Needs the home latches.
  func setMode(_ entry: EntryRef, _ mode: LockMode, _ homes: Homes) {
    entry.pointer.pointee.mode = mode
    homes.lower.tree.pointee.refresh(entry.link0)
    if let upper = homes.upper { upper.tree.pointee.refresh(entry.link1) }
    if let middle = homes.middle { middle.tree.pointee.refresh(entry.link2) }
  }
}
