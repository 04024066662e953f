// SPDX-License-Identifier: Apache-2.0
//
// The records of one leaf at one instant: immutable once published.
//
//   0        8         16                 168                320
//   +--------+---------+------------------+------------------+
//   | count  | measure | starts [19]      | records [19]     |
//   +--------+---------+------------------+------------------+
//
// Starts and records are sorted and parallel. The first record may begin below the leaf, the last may
// end above it. 19 entries fit, so that a change is first written down and then, if there are more than
// `capacity`, divided among two leaves.

typealias ContentRef = UnsafeMutablePointer<LeafContent>

struct LeafContent {
  var count: Int
  /// An upper bound for what this leaf adds to a gap: see `measureGaps`.
  var measure: UInt64

  /// Records in a leaf. Checked builds use few, so that small tests split and merge leaves.
  #if RANGELAND_CHECKS
    static var capacity: Int { 4 }
  #else
    static var capacity: Int { 16 }
  #endif
  /// Entries that fit: a change adds at most two to a leaf, and one may be a reservation.
  static var room: Int { 19 }
  static var startsOffset: Int { 16 }
  static var recordsOffset: Int { 16 + 19 * 8 }
}

extension UnsafeMutablePointer where Pointee == LeafContent {
  /// Bounds of the entries' records; equal to their `start`.
  @inline(__always)
  var starts: UnsafeMutablePointer<UInt64> {
    (UnsafeMutableRawPointer(self) + LeafContent.startsOffset)
      .assumingMemoryBound(to: UInt64.self)
  }

  @inline(__always)
  var records: UnsafeMutablePointer<RecordRef> {
    (UnsafeMutableRawPointer(self) + LeafContent.recordsOffset)
      .assumingMemoryBound(to: RecordRef.self)
  }

  @inline(__always)
  func initializeEmpty() {
    initialize(to: LeafContent(count: 0, measure: .max))
  }

  /// Adds an entry behind the last.
  @inline(__always)
  func append(_ record: RecordRef) {
    append(record, start: record.pointee.start)
  }

  @inline(__always)
  func append(_ record: RecordRef, start: UInt64) {
    let i = pointee.count
    assert(i < LeafContent.room)
    starts[i] = start
    records[i] = record
    pointee.count = i &+ 1
  }

  /// How many entries start at or below `address`: the entry before this index may cover it.
  @inline(__always)
  func upperBound(_ address: UInt64) -> Int {
    let starts = starts
    var low = 0
    var length = pointee.count
    while length > 0 {
      let half = length &>> 1
      if starts[low &+ half] <= address {
        low &+= half &+ 1
        length &-= half &+ 1
      } else {
        length = half
      }
    }
    return low
  }

  /// The entry that covers `address`, a reservation included.
  @inline(__always)
  func entry(covering address: UInt64) -> RecordRef? {
    let i = upperBound(address)
    if i == 0 { return nil }
    let record = records[i &- 1]
    return address < record.pointee.end ? record : nil
  }

  /// Computes `measure`: the largest gap in the leaf `[low, high)`, where one that touches a fence counts
  /// double, and a leaf without an entry as infinite.
  ///
  /// So whenever free addresses of total length n run over leaves, at least one of them measures n or
  /// more: if two leaves share the run, one has half of it at its fence; if more, one is empty.
  func measureGaps(_ low: UInt64, _ high: UInt64) {
    let count = pointee.count
    if count == 0 {
      pointee.measure = .max
      return
    }
    let starts = starts
    let records = records
    var largest: UInt64 = 0
    if starts[0] > low { largest = 2 &* (starts[0] &- low) }
    var end = records[0].pointee.end
    var i = 1
    while i < count {
      let gap = starts[i] &- end
      if gap > largest { largest = gap }
      end = records[i].pointee.end
      i &+= 1
    }
    if end < high {
      let tail = 2 &* (high &- end)
      if tail > largest { largest = tail }
    }
    pointee.measure = largest
  }
}
