// SPDX-License-Identifier: Apache-2.0
//
// What a `mremap` does to simulated VMAs: as Sources/Rangeland/Operations/Remap.swift and RemapMove.swift.

extension SimulatedAreas {
  /// Resizes or moves what is mapped at the start of the step. What the real operation refuses changes nothing.
  mutating func remap(_ step: SimulationStep) {
    let move = move(of: step)
    let start = step.start
    guard let area = area(at: start) else { return }
    if move.target == 0 {
      resize(area, start, move)
      return
    }
    let target = move.targetRange
    let kept = min(move.oldLength, move.newLength)
    if move.oldLength != move.newLength {
      if kept > area.end - start { return }
      moveOne(start, move, to: target.lowerBound)
      return
    }
    // All that lies in the range, piece by piece, with the holes between.
    let end = start + move.oldLength
    var position = start
    while position < end, let piece = nextArea(position), piece.start < end {
      let from = max(position, piece.start)
      var part = move
      part.oldLength = min(piece.end, end) - from
      part.newLength = part.oldLength
      position = from + part.oldLength
      moveOne(from, part, to: target.lowerBound + (from - start))
    }
  }

  private mutating func resize(_ area: SimulatedArea, _ start: UInt64, _ move: SimulationMove) {
    let (oldEnd, newEnd) = (start + move.oldLength, start + move.newLength)
    if newEnd <= oldEnd {
      if newEnd < oldEnd { clear(newEnd, oldEnd) }
      return
    }
    guard area.end == oldEnd, nextArea(oldEnd).map({ $0.start >= newEnd }) ?? true else { return }
    var growth = area
    growth.start = oldEnd
    growth.end = newEnd
    insert(growth)
  }

  /// Moves a part of one VMA to where nothing stays of what was there.
  private mutating func moveOne(_ start: UInt64, _ move: SimulationMove, to target: UInt64) {
    clear(target, target + move.newLength)
    if move.newLength < move.oldLength { clear(start + move.newLength, start + move.oldLength) }
    let length = min(move.oldLength, move.newLength)
    guard var moved = area(at: start) else { return }
    moved.start = target
    moved.end = target + move.newLength
    moved.cell = -1
    // Private memory that was never written to has no offset worth keeping.
    let hasOffset = moved.attributes.object != 0 || moved.identity != 0
    let distance = Int64(bitPattern: target &- start) / 4096
    moved.attributes.delta = hasOffset ? moved.attributes.delta &+ distance : 0
    insert(moved)
    if length == 0 { return }
    if move.keepsSource {
      leaveBehind(start, start + length)
    } else {
      clear(start, start + length)
    }
  }
}
