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
/// It is some 230 bytes, so each thread has one place for it in the layout (`LayoutThread`), and plans are
/// written and read there. As a value it was copied several times a change, which cost more than the plan:
/// a copy loads wide what was just stored narrow.
struct Splice {
  /// The window.
  fileprivate(set) var start: Address = 0
  fileprivate(set) var end: Address = 0
  /// Whether reservations in the window go too.
  fileprivate(set) var dropsReservations = false
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
  fileprivate(set) var extentStart: Address = 0
  fileprivate(set) var extentEnd: Address = 0
  fileprivate(set) var count = 0
  fileprivate var first = RecordDraft()
  fileprivate var second = RecordDraft()
  fileprivate var third = RecordDraft()

  @inline(__always)
  init() {}
}

typealias SpliceRef = UnsafeMutablePointer<Splice>

extension UnsafeMutablePointer where Pointee == Splice {
  /// Begins a plan, whatever was here before.
  @inline(__always)
  func begin(_ start: Address, _ end: Address, dropsReservations: Bool) {
    pointee.start = start
    pointee.end = end
    pointee.dropsReservations = dropsReservations
    pointee.dropsAreas = true
    pointee.keepsCell = false
    pointee.mayBecomeReservation = false
    pointee.left = nil
    pointee.right = nil
    pointee.extentStart = start
    pointee.extentEnd = end
    pointee.count = 0
  }

  /// Adds a record, behind those added before.
  @inline(__always)
  func add(_ draft: RecordDraft) {
    switch pointee.count {
    case 0: pointee.first = draft
    case 1: pointee.second = draft
    default: pointee.third = draft
    }
    pointee.count &+= 1
    extend(draft.start, draft.end)
  }

  /// Takes `[start, end)` into the extent.
  @inline(__always)
  func extend(_ start: Address, _ end: Address) {
    if start < pointee.extentStart { pointee.extentStart = start }
    if end > pointee.extentEnd { pointee.extentEnd = end }
  }

  @inline(__always)
  func extend(_ record: RecordRef) { extend(record.pointee.start, record.pointee.end) }

  /// New record `i`.
  @inline(__always)
  func draft(_ i: Int) -> UnsafeMutablePointer<RecordDraft> {
    let offset =
      switch i {
      case 0: MemoryLayout<Splice>.offset(of: \.first).unsafelyUnwrapped
      case 1: MemoryLayout<Splice>.offset(of: \.second).unsafelyUnwrapped
      default: MemoryLayout<Splice>.offset(of: \.third).unsafelyUnwrapped
      }
    return (UnsafeMutableRawPointer(self) + offset).assumingMemoryBound(to: RecordDraft.self)
  }

  /// Whether the record goes.
  @inline(__always)
  func drops(_ record: RecordRef) -> Bool {
    if record.pointee.start < pointee.end && record.pointee.end > pointee.start {
      return record.pointee.isReservation ? pointee.dropsReservations : pointee.dropsAreas
    }
    return record == pointee.left || record == pointee.right
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
