// SPDX-License-Identifier: Apache-2.0
//
// What a `mremap` asks for, beside the pages of its step: in a table, so that the steps of all else stay small.

/// The pages of the step are where the mapping is, and what it grows into unless it moves (`RemapRequest.sourceRange`).
struct SimulationMove: Hashable, Sendable {
  /// Where it goes; 0 = it stays.
  var target: UInt64
  /// In bytes, whole pages.
  var oldLength: UInt64
  var newLength: UInt64

  /// Bit 0 of `target`, which is on a page: what moves stays mapped where it was, without its pages.
  private static let keepsSource: UInt64 = 1

  /// - Parameter target: on a page; nil = it stays.
  init(to target: UInt64?, oldLength: UInt64, newLength: UInt64, keepsSource: Bool) {
    self.target = target.map { $0 | (keepsSource ? Self.keepsSource : 0) } ?? 0
    self.oldLength = oldLength
    self.newLength = newLength
  }

  var keepsSource: Bool { target & Self.keepsSource != 0 }

  /// Where it goes: locked together with where it comes from. Empty if it stays.
  var targetRange: Range<UInt64> {
    let start = target & ~Self.keepsSource
    return start == 0 ? 0..<0 : start..<(start + newLength)
  }

  /// What is locked of where it is.
  func sourceRange(from start: UInt64) -> Range<UInt64> {
    start..<(start + max(oldLength, target == 0 ? newLength : 0, 4096))
  }
}

extension RecordedCall {
  /// Of a `mremap` that succeeded: where the mapping was, and what became of it.
  var move: (start: UInt64, move: SimulationMove)? {
    guard kind == .mremap, errno == nil else { return nil }
    let target = UInt64(bitPattern: result) & ~4095
    let start = arguments[0] & ~4095
    let oldLength = (arguments[1] &+ 4095) & ~4095
    let newLength = (arguments[2] &+ 4095) & ~4095
    let move = SimulationMove(
      to: target == start ? nil : target, oldLength: oldLength, newLength: newLength,
      keepsSource: arguments[3] & LinuxFlag.remapDontUnmap != 0)
    let room = RecordedArea.spaceEnd
    guard start < room, newLength > 0, target < room, max(oldLength, newLength) <= room,
      target + newLength <= room, move.sourceRange(from: start).upperBound <= room
    else { return nil }
    return (start, move)
  }
}
