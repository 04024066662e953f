// SPDX-License-Identifier: Apache-2.0
//
// One change of the layout, as decided under the latches: which records go, which come.

/// A record that is about to be made.
struct RecordDraft {
  var start: Address
  var end: Address
  var flags: VMAFlags
  var pageOffset: UInt64
  var backing: MappingRef?
  var anonymous: MappingRef?
  /// The lock cell that the new record shares with the old one; `nil` = one of its own.
  var cell: VMACellRef?

  /// None.
  @inline(__always)
  fileprivate init() {
    start = 0
    end = 0
    flags = []
    pageOffset = 0
  }

  /// The part `[start, end)` of a record.
  @inline(__always)
  init(_ record: RecordRef, _ start: Address, _ end: Address) {
    self.start = start
    self.end = end
    flags = record.pointee.flags
    pageOffset = record.pointee.pageOffset(at: start)
    backing = record.pointee.backing
    anonymous = record.pointee.anonymous
  }

  @inline(__always)
  init(_ attributes: VMAAttributes, _ start: Address, _ end: Address) {
    self.start = start
    self.end = end
    flags = attributes.flags
    pageOffset = attributes.pageOffset ?? (start >> 12)
    backing = attributes.backing
    anonymous = attributes.anonymous
  }

  /// A reservation.
  @inline(__always)
  init(reserving start: Address, _ end: Address) {
    self.start = start
    self.end = end
    flags = .reservation
    pageOffset = 0
    backing = nil
    anonymous = nil
  }
}

/// Records that go: all in a window, and two merge partners beside it. Records that come: at most three.
///
/// It is some 270 bytes, so it is written where it is read: `LayoutTree.splice` owns the one value, and plans
/// fill it in. A copy costs more than the rest of a plan, because it loads wide what was just stored narrow.
struct Splice {
  /// The window.
  private(set) var start: Address = 0
  private(set) var end: Address = 0
  /// Whether reservations in the window go too.
  private(set) var dropsReservations = false
  /// Whether VMAs in the window go.
  var dropsAreas = true
  /// Whether the new record takes the cell of the old one over.
  var keepsCell = false
  /// Whether `confirm` may make a reservation of it.
  var mayBecomeReservation = false
  /// Merge partner that ends where the window starts, or the record that is to be changed.
  var left: RecordRef?
  /// Merge partner that starts where the window ends.
  var right: RecordRef?
  /// The union of all that goes and comes: must be under the latches.
  private(set) var extentStart: Address = 0
  private(set) var extentEnd: Address = 0
  private(set) var count = 0
  private var first = RecordDraft()
  private var second = RecordDraft()
  private var third = RecordDraft()

  @inline(__always)
  init() {}

  /// Begins a plan, whatever was here before.
  @inline(__always)
  mutating func begin(_ start: Address, _ end: Address, dropsReservations: Bool) {
    self.start = start
    self.end = end
    self.dropsReservations = dropsReservations
    dropsAreas = true
    keepsCell = false
    mayBecomeReservation = false
    left = nil
    right = nil
    extentStart = start
    extentEnd = end
    count = 0
  }

  /// Adds a record, behind those added before.
  @inline(__always)
  mutating func add(_ draft: RecordDraft) {
    switch count {
    case 0: first = draft
    case 1: second = draft
    default: third = draft
    }
    count &+= 1
    extend(draft.start, draft.end)
  }

  /// Takes `[start, end)` into the extent.
  @inline(__always)
  mutating func extend(_ start: Address, _ end: Address) {
    if start < extentStart { extentStart = start }
    if end > extentEnd { extentEnd = end }
  }

  @inline(__always)
  mutating func extend(_ record: RecordRef) { extend(record.pointee.start, record.pointee.end) }

  @inline(__always)
  subscript(i: Int) -> RecordDraft {
    switch i {
    case 0: first
    case 1: second
    default: third
    }
  }

  /// Whether the record goes.
  @inline(__always)
  func drops(_ record: RecordRef) -> Bool {
    if record.pointee.start < end && record.pointee.end > start {
      return record.pointee.isReservation ? dropsReservations : dropsAreas
    }
    return record == left || record == right
  }
}

/// Memory reserved for one change.
struct SpliceBudget {
  /// Leaves whose contents may change.
  var leaves = 2
  /// Index nodes for each of two divided leaves; 0 = no leaf may be divided.
  var nodes = 0

  /// Reserves it all, or `false`.
  @inline(__always)
  func reserve(_ context: Context, cells: Bool) -> Bool {
    if cells, !context.reserve(.vmaCell, count: 3) { return false }
    guard context.reserve(.record, count: 3),
      context.reserve(.leafContent, count: leaves + (nodes > 0 ? 4 : 0))
    else { return false }
    return nodes == 0
      || context.reserve(.leaf, count: 4) && context.reserve(.indexNode, count: 2 * nodes)
  }
}
