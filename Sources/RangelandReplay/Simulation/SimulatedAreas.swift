// SPDX-License-Identifier: Apache-2.0
//
// The VMAs of a simulated space and their lock words (`.perVMA`).
//
// Guarantee: they split and merge as those of Sources/Rangeland/Layout do for the effects that a program has (map,
//   unmap, protect, the anonymous identity of a first write), and whatever is made anew has a word of its own.
// Mechanism: one sorted array in memory of its own.
// Cost: a binary search a fault; a move of the array's tail a change.

/// One VMA.
struct SimulatedArea {
  var start: UInt64
  var end: UInt64
  var attributes: SimulationProgram.Attributes
  /// 0 = none.
  var identity: UInt32
  var cell: Int32

  /// Whether `next`, which begins where this one ends, may become one with it.
  func merges(with next: SimulatedArea) -> Bool {
    attributes == next.attributes
      && (identity == next.identity || identity == 0 || next.identity == 0)
  }
}

/// The lock word of a VMA.
struct SimulatedCell {
  var readers: UInt32 = 0
  var isLocked = false
  /// Whether its VMA is gone: it goes when its writer ends.
  var isDead = false
  /// The place of the writer that waits for the readers; -1 = none.
  var waiter: Int32 = -1
}

struct SimulatedAreas: ~Copyable {
  private var areas: UnsafeMutablePointer<SimulatedArea>
  private var count = 0
  private var capacity = 64
  private(set) var cells: UnsafeMutablePointer<SimulatedCell>
  private var cellCount = 0
  private var cellCapacity = 64
  private var freeCells: [Int32] = []
  /// The words that the writer has locked. There is one writer.
  private var locked: [Int32] = []
  private var lastIdentity: UInt32 = 0
  private let attributes: [SimulationProgram.Attributes]
  var moves: [SimulationMove]

  init(_ program: SimulationProgram) {
    areas = .allocate(capacity: capacity)
    cells = .allocate(capacity: cellCapacity)
    attributes = program.attributes
    moves = program.moves
    for area in program.areas { map(area.start, area.end, area.attributes) }
  }

  deinit {
    areas.deallocate()
    cells.deallocate()
  }

  // MARK: words

  private mutating func makeCell() -> Int32 {
    if let free = freeCells.popLast() {
      cells[Int(free)] = SimulatedCell()
      return free
    }
    if cellCount == cellCapacity {
      let larger = UnsafeMutablePointer<SimulatedCell>.allocate(capacity: cellCapacity * 2)
      larger.moveInitialize(from: cells, count: cellCount)
      cells.deallocate()
      cells = larger
      cellCapacity *= 2
    }
    (cells + cellCount).initialize(to: SimulatedCell())
    cellCount += 1
    return Int32(cellCount - 1)
  }

  /// The word of a VMA that is gone: free at once unless a writer holds it.
  private mutating func drop(_ cell: Int32) {
    if cells[Int(cell)].isLocked { cells[Int(cell)].isDead = true } else { freeCells.append(cell) }
  }

  /// The word that a reader of the range may enter; -1 = it takes the semaphore.
  ///
  /// - Parameter needsIdentity: it writes, and gives a private VMA its identity if it has none.
  func readableCell(_ start: UInt64, _ end: UInt64, needsIdentity: Bool) -> Int32 {
    let index = firstIndex(endingAfter: start)
    guard index < count, areas[index].start <= start, areas[index].end >= end else { return -1 }
    if needsIdentity, isWithoutIdentity(index) { return -1 }
    let cell = areas[index].cell
    return cells[Int(cell)].isLocked ? -1 : cell
  }

  /// Whether the first write gives the VMA an identity: it is private, may be written to and has none.
  private func isWithoutIdentity(_ index: Int) -> Bool {
    areas[index].identity == 0 && areas[index].attributes.flags & 2 != 0
      && areas[index].attributes.flags & SimulationProgram.Attributes.shared == 0
  }

  /// The first word that is not locked of the VMAs over `[low, end]`, both ends included; -1 = none.
  func nextUnlocked(_ low: UInt64, _ end: UInt64) -> Int32 {
    var index = firstIndex(endingAfter: low)
    while index < count, areas[index].start <= end {
      if !cells[Int(areas[index].cell)].isLocked { return areas[index].cell }
      index += 1
    }
    return -1
  }

  mutating func lock(_ cell: Int32) {
    cells[Int(cell)].isLocked = true
    locked.append(cell)
  }

  mutating func unlockAll() {
    for cell in locked {
      cells[Int(cell)].isLocked = false
      if cells[Int(cell)].isDead { freeCells.append(cell) }
    }
    locked.removeAll(keepingCapacity: true)
  }

  // MARK: changes

  /// Maps a range, replacing what is there, and merges with the neighbours.
  mutating func map(_ start: UInt64, _ end: UInt64, _ attributesIndex: UInt32) {
    guard start < end else { return }
    clear(start, end)
    insert(
      SimulatedArea(
        start: start, end: end, attributes: attributes[Int(attributesIndex)], identity: 0, cell: -1)
    )
  }

  /// What a step that `isMove` asks for.
  func move(of step: SimulationStep) -> SimulationMove { moves[Int(step.attributes)] }

  mutating func unmap(_ start: UInt64, _ end: UInt64) { clear(start, end) }

  /// Gives the VMAs of a range the rights `rights` (3 bits), one after the other from the left.
  mutating func protect(_ start: UInt64, _ end: UInt64, _ rights: UInt32) {
    var position = start
    while position < end {
      let index = firstIndex(endingAfter: position)
      guard index < count, areas[index].start <= position else { return }
      let old = areas[index]
      let stop = min(end, old.end)
      var flags = old.attributes.flags & ~7 | rights
      if flags != old.attributes.flags {
        let charged = SimulationProgram.Attributes.charged
        if rights & 2 != 0 {
          if old.attributes.flags & (charged | 2 | SimulationProgram.Attributes.shared) == 0 {
            flags |= charged
          }
        } else if old.attributes.object == 0 && old.identity == 0 {
          flags &= ~charged
        }
        var changed = old
        changed.start = position
        changed.end = stop
        changed.attributes.flags = flags
        clear(position, stop)
        insert(changed)
      }
      position = stop
    }
  }

  /// A first write: the VMA takes a neighbour's identity, or gets one of its own. It keeps its word.
  mutating func publishIdentity(at address: UInt64) {
    let index = firstIndex(endingAfter: address)
    guard index < count, areas[index].start <= address, isWithoutIdentity(index) else { return }
    if index + 1 < count, areas[index + 1].start == areas[index].end,
      isReusable(areas[index + 1], for: areas[index])
    {
      areas[index].identity = areas[index + 1].identity
    } else if index > 0, areas[index - 1].end == areas[index].start,
      isReusable(areas[index - 1], for: areas[index])
    {
      areas[index].identity = areas[index - 1].identity
    } else {
      lastIdentity += 1
      areas[index].identity = lastIdentity
    }
  }

  /// Whether all but the rights is equal.
  private func isReusable(_ neighbour: SimulatedArea, for area: SimulatedArea) -> Bool {
    neighbour.identity != 0 && (neighbour.attributes.flags ^ area.attributes.flags) & ~7 == 0
      && neighbour.attributes.object == area.attributes.object
      && neighbour.attributes.delta == area.attributes.delta
  }

  /// Removes what is mapped in a range; what stays of a VMA that is cut is a new one.
  mutating func clear(_ start: UInt64, _ end: UInt64) {
    let first = firstIndex(endingAfter: start)
    var last = first
    var below: SimulatedArea?
    var above: SimulatedArea?
    while last < count, areas[last].start < end {
      let area = areas[last]
      if area.start < start {
        below = area
        below!.end = start
      }
      if area.end > end {
        above = area
        above!.start = end
      }
      drop(area.cell)
      last += 1
    }
    if first == last { return }
    var parts = 0
    if below != nil { parts += 1 }
    if above != nil { parts += 1 }
    move(from: last, to: first + parts)
    var index = first
    if var below {
      below.cell = makeCell()
      areas[index] = below
      index += 1
    }
    if var above {
      above.cell = makeCell()
      areas[index] = above
    }
  }

  /// Puts an area where nothing is, and merges it with its neighbours.
  mutating func insert(_ area: SimulatedArea) {
    var area = area
    var first = firstIndex(endingAfter: area.start)
    var last = first
    var mergesLeft = false
    if first > 0, areas[first - 1].end == area.start, areas[first - 1].merges(with: area) {
      mergesLeft = true
    }
    var mergesRight = false
    if first < count, areas[first].start == area.end, area.merges(with: areas[first]) {
      // All three become one only if the outer two may share their identity.
      mergesRight = !mergesLeft || Self.shareIdentity(areas[first - 1], areas[first])
    }
    if mergesLeft {
      first -= 1
      drop(areas[first].cell)
      area.start = areas[first].start
      if areas[first].identity != 0 { area.identity = areas[first].identity }
    }
    if mergesRight {
      drop(areas[last].cell)
      area.end = areas[last].end
      if area.identity == 0 { area.identity = areas[last].identity }
      last += 1
    }
    area.cell = makeCell()
    move(from: last, to: first + 1)
    areas[first] = area
  }

  private static func shareIdentity(_ left: SimulatedArea, _ right: SimulatedArea) -> Bool {
    left.identity == right.identity || left.identity == 0 || right.identity == 0
  }

  /// Moves the tail that begins at `from` so that it begins at `to`.
  private mutating func move(from: Int, to: Int) {
    let tail = count - from
    if to + tail > capacity {
      var larger = capacity
      while larger < to + tail { larger *= 2 }
      let memory = UnsafeMutablePointer<SimulatedArea>.allocate(capacity: larger)
      memory.moveInitialize(from: areas, count: count)
      areas.deallocate()
      areas = memory
      capacity = larger
    }
    // The elements are trivial: bytes that are overwritten or left behind need nothing.
    if from != to { (areas + to).update(from: areas + from, count: tail) }
    count = to + tail
  }

  /// Index of the first area whose end lies above `address`.
  private func firstIndex(endingAfter address: UInt64) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if areas[middle].end > address { high = middle } else { low = middle + 1 }
    }
    return low
  }

  // MARK: moves

  /// The area that holds `address`, if any.
  func area(at address: UInt64) -> SimulatedArea? {
    let index = firstIndex(endingAfter: address)
    return index < count && areas[index].start <= address ? areas[index] : nil
  }

  /// The first area that ends after `address`.
  func nextArea(_ address: UInt64) -> SimulatedArea? {
    let index = firstIndex(endingAfter: address)
    return index < count ? areas[index] : nil
  }

  /// What stays of a mapping that moved: it has no identity any more if all of it did. It does not merge.
  mutating func leaveBehind(_ start: UInt64, _ end: UInt64) {
    let index = firstIndex(endingAfter: start)
    guard index < count, areas[index].start == start, areas[index].end == end else { return }
    areas[index].identity = 0
    if areas[index].attributes.object == 0 { areas[index].attributes.delta = 0 }
  }

  /// The VMAs, for tests.
  var all: [SimulatedArea] { (0..<count).map { areas[$0] } }
}
