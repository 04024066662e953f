// SPDX-License-Identifier: Apache-2.0
//
// Where in its address space a program did something, and when: a grid of time and of those addresses that it used.
//
// An address space is nearly empty, so a row is not a fixed part of it: the pieces of 1 MiB in which something happened
// stand one above the other, in the order of their addresses, as many to a row as the number of rows asks for.

/// A grid of what happened where.
public struct ActivityMap: Sendable {
  public static let mostRows = 72
  public static let columns = 180

  public struct Row: Sendable {
    /// The first address, and whether addresses that nobody used lie below it.
    public var address: UInt64
    public var isAfterGap: Bool
    public var faults: [UInt32]
    /// Calls that changed mappings.
    public var changes: [UInt32]
    /// Nanoseconds of waits for the lock that were true, and that were false.
    public var trueWaits: [UInt64]
    public var falseWaits: [UInt64]
  }

  /// By address, ascending.
  public private(set) var rows: [Row] = []
  /// The time of all columns, in nanoseconds.
  public private(set) var duration: UInt64

  private static let pieceShift: UInt64 = 20
  /// A gap is worth showing from 1 GiB on.
  private static let gapPieces: UInt64 = 1024
  /// A gap begins a row, if there are no more of them than this.
  private static let mostGaps = 24
  /// Of a longer range only the first pieces count.
  private static let mostPieces: UInt64 = 64

  init(_ recording: Recording, _ waits: [RecordedWaits.Wait]) {
    duration = max(1, recording.duration)
    var used: Set<UInt64> = []
    for fault in recording.faults { used.insert(fault.address >> Self.pieceShift) }
    for call in recording.calls where call.changesMappings {
      for piece in Self.pieces(call) { used.insert(piece) }
    }
    let pieces = used.sorted()
    guard !pieces.isEmpty else { return }
    let perRow = (pieces.count + Self.mostRows - 1) / Self.mostRows
    func isAfterGap(_ index: Int) -> Bool {
      index == 0 || pieces[index] - pieces[index - 1] >= Self.gapPieces
    }
    let gapsBeginRows = pieces.indices.count { isAfterGap($0) } <= Self.mostGaps
    var rowOfPiece: [UInt64: Int] = [:]
    var inRow = 0
    for (index, piece) in pieces.enumerated() {
      let isAfterGap = isAfterGap(index)
      if index == 0 || inRow == perRow || isAfterGap && gapsBeginRows {
        inRow = 0
        rows.append(
          Row(
            address: piece << Self.pieceShift, isAfterGap: isAfterGap,
            faults: Array(repeating: 0, count: Self.columns),
            changes: Array(repeating: 0, count: Self.columns),
            trueWaits: Array(repeating: 0, count: Self.columns),
            falseWaits: Array(repeating: 0, count: Self.columns)))
      }
      inRow += 1
      rowOfPiece[piece] = rows.count - 1
    }
    for fault in recording.faults {
      rows[rowOfPiece[fault.address >> Self.pieceShift]!].faults[column(fault.time)] += 1
    }
    for call in recording.calls where call.changesMappings {
      let column = column(call.enter)
      var last = -1
      for piece in Self.pieces(call) {
        let row = rowOfPiece[piece]!
        if row == last { continue }
        rows[row].changes[column] += 1
        last = row
      }
    }
    for wait in waits {
      guard let address = wait.address, let row = rowOfPiece[address >> Self.pieceShift] else {
        continue
      }
      if wait.isFalse {
        rows[row].falseWaits[column(wait.time)] += wait.nanoseconds
      } else {
        rows[row].trueWaits[column(wait.time)] += wait.nanoseconds
      }
    }
  }

  private func column(_ time: UInt64) -> Int {
    min(Self.columns - 1, Int(Double(time) / Double(duration) * Double(Self.columns)))
  }

  private static func pieces(_ call: RecordedCall) -> Range<UInt64> {
    guard let range = call.kind == .brk ? breakRange(call) : call.lockedRange else { return 0..<0 }
    let first = range.lowerBound >> pieceShift
    return first..<min(first + mostPieces, ((range.upperBound - 1) >> pieceShift) + 1)
  }

  private static func breakRange(_ call: RecordedCall) -> Range<UInt64> {
    let page = UInt64(bitPattern: call.result) & ~4095
    return page..<(page + 4096)
  }
}
