// SPDX-License-Identifier: Apache-2.0
//
// Several ranges in one request, made disjoint.
//
// Guarantee: the pieces cover the same keys as the ranges, each key once, in the strongest mode asked for it;
// touching pieces of one mode are one; they are in ascending order.
// Mechanism: a sweep over the sorted bounds.
// Cost: sorts 2n bounds in temporary memory; no allocation for 16 ranges or less.

/// A range and the mode it is wanted in.
public struct RangeRequest: Sendable, Hashable {
  /// The keys.
  public var range: KeyRange
  /// What for.
  public var mode: LockMode

  /// A request for `range` in `mode`.
  @inlinable
  public init(_ range: KeyRange, _ mode: LockMode) {
    self.range = range
    self.mode = mode
  }
}

extension RangeRequest {
  /// A bound of a range: where its mode begins to count, or stops to.
  private struct Bound {
    var key: UInt64
    var mode: LockMode
    var change: Int
  }

  /// Calls `body` with the disjoint pieces of `requests`.
  static func withPieces<Result>(
    of requests: [RangeRequest], _ body: (UnsafeBufferPointer<RangeRequest>) -> Result
  ) -> Result {
    withUnsafeTemporaryAllocation(of: Bound.self, capacity: 2 * requests.count) { bounds in
      var count = 0
      for request in requests {
        insert(Bound(key: request.range.first, mode: request.mode, change: 1), bounds, &count)
        // A range to the last key never stops.
        if request.range.last == .max { continue }
        insert(Bound(key: request.range.last + 1, mode: request.mode, change: -1), bounds, &count)
      }
      return withUnsafeTemporaryAllocation(of: RangeRequest.self, capacity: 2 * requests.count) {
        pieces in
        let pieceCount = sweep(UnsafeBufferPointer(rebasing: bounds[..<count]), pieces)
        return body(UnsafeBufferPointer(rebasing: pieces[..<pieceCount]))
      }
    }
  }

  /// Keeps `bounds` sorted by key. Requests have few ranges, most often sorted: this is an insertion sort.
  private static func insert(
    _ bound: Bound, _ bounds: UnsafeMutableBufferPointer<Bound>, _ count: inout Int
  ) {
    var place = count
    (bounds.baseAddress! + place).initialize(to: bound)
    while place > 0, bounds[place - 1].key > bound.key {
      bounds[place] = bounds[place - 1]
      place -= 1
    }
    bounds[place] = bound
    count += 1
  }

  private static func sweep(
    _ bounds: UnsafeBufferPointer<Bound>, _ pieces: UnsafeMutableBufferPointer<RangeRequest>
  ) -> Int {
    var count = 0
    var active: (read: Int, upgradeable: Int, write: Int) = (0, 0, 0)
    var start: UInt64 = 0
    func strongest() -> LockMode? {
      if active.write > 0 { return .write }
      if active.upgradeable > 0 { return .upgradeableRead }
      return active.read > 0 ? .read : nil
    }
    func emit(_ last: UInt64) {
      guard let mode = strongest() else { return }
      if count > 0, pieces[count - 1].mode == mode, pieces[count - 1].range.last &+ 1 == start {
        let first = pieces[count - 1].range.first
        pieces[count - 1].range = KeyRange(uncheckedFirst: first, last: last)
        return
      }
      let piece = RangeRequest(KeyRange(uncheckedFirst: start, last: last), mode)
      (pieces.baseAddress! + count).initialize(to: piece)
      count += 1
    }
    for bound in bounds {
      if bound.key > start {
        emit(bound.key - 1)
        start = bound.key
      }
      switch bound.mode {
      case .read: active.read += bound.change
      case .upgradeableRead: active.upgradeable += bound.change
      case .write: active.write += bound.change
      }
    }
    emit(.max)
    return count
  }
}
