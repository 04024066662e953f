// SPDX-License-Identifier: Apache-2.0
//
// The lock words of VMAs (`.perVMA`): faults enter them, writers lock them and wait for the faults inside.

import Rangeland

extension LockModel {
  /// Write-locks the words of the VMAs that a change of the range replaces, merge neighbours included, going on where
  /// it stood; false = it waits for readers of one.
  mutating func lockCells(_ thread: Int, now: UInt64) -> Bool {
    let place = Int32(thread)
    while true {
      // Of a move: first where the mapping is, then where it goes.
      var cell = nextUnlocked(at(place).pointee.start, at(place).pointee.end)
      if cell < 0, at(place).pointee.secondEnd != 0 {
        cell = nextUnlocked(at(place).pointee.secondStart, at(place).pointee.secondEnd)
      }
      if cell < 0 { return true }
      areas.lock(cell)
      if areas.cells[Int(cell)].readers == 0 { continue }
      // A wait of its own: the semaphore is held already.
      areas.cells[Int(cell)].waiter = place
      let second = place &+ Int32(threads)
      announceWord(second, of: place)
      beginWait(second, now)
      return false
    }
  }

  private func nextUnlocked(_ start: UInt64, _ end: UInt64) -> Int32 {
    areas.nextUnlocked(start == 0 ? 0 : start - 1, end)
  }

  /// The writer runs again: the readers have left.
  mutating func proceedWithCells(_ thread: Int, now: UInt64) {
    let second = Int32(thread) &+ Int32(threads)
    endWait(second, now)
    removeWord(second)
    lookAgain(afterGrant: second, now)
    lookAgain(afterRelease: second, now)
  }

  mutating func leaveCell(_ cell: Int32) {
    areas.cells[Int(cell)].readers &-= 1
    if areas.cells[Int(cell)].readers == 0, areas.cells[Int(cell)].waiter >= 0 {
      signal(areas.cells[Int(cell)].waiter, .granted)
      areas.cells[Int(cell)].waiter = -1
    }
  }

  /// What the operation has done to the mappings, and the end of the words that it locked.
  mutating func applyEffect(_ step: SimulationStep, _ place: Int32) {
    if at(place).pointee.writes {
      switch step.effect {
      case .none: break
      case .map where step.isMove: areas.remap(step)
      case .map: areas.map(step.start, step.end, step.attributes)
      case .unmap: areas.unmap(step.start, step.end)
      case .protect: areas.protect(step.start, step.end, step.attributes)
      }
      areas.unlockAll()
    } else if step.writesPage, at(place).pointee.cell < 0 {
      areas.publishIdentity(at: step.start)
    }
  }
}
