// SPDX-License-Identifier: Apache-2.0
//
// Who waits for whom in a simulation, and whether the wait is a false one: the rules of `WaitLedger`.
//
// A wait is charged to whoever is ahead: the earliest request whose mode is incompatible, of those that hold or came
// before; one that works on the same pages comes first, and while there is one the wait is true.

import Rangeland

/// What simulated waits add up to.
struct SimulatedWaits {
  struct Cell {
    var waits: UInt64 = 0
    var nanoseconds: UInt64 = 0
    var falseNanoseconds: UInt64 = 0
  }

  var waits: UInt64 = 0
  var falseWaits: UInt64 = 0
  var longest: UInt64 = 0
  /// Row: operation; column: the one ahead, 32 = nobody.
  var cells = InlineArray<1056, Cell>(repeating: Cell())
  var lengths = LengthHistogram()
}

extension LockModel {
  mutating func announceWord(_ second: Int32, of place: Int32) {
    let request = at(second)
    request.pointee = LockRequest()
    request.pointee.start = at(place).pointee.start
    request.pointee.end = at(place).pointee.end
    request.pointee.secondStart = at(place).pointee.secondStart
    request.pointee.secondEnd = at(place).pointee.secondEnd
    request.pointee.writes = true
    request.pointee.operation = at(place).pointee.operation
    request.pointee.state = .waiting
    // It is not in the list of all: its thread is there, holding the lock.
    sequence &+= 1
    request.pointee.sequence = sequence
  }

  mutating func removeWord(_ second: Int32) { at(second).pointee.state = .free }

  mutating func beginWait(_ place: Int32, _ now: UInt64) {
    let request = at(place)
    request.pointee.waitStart = now
    request.pointee.lastCharge = now
    request.pointee.trueNanoseconds = 0
    attribute(place)
    let ahead = request.pointee.ahead
    request.pointee.firstAhead = ahead >= 0 ? at(ahead).pointee.operation : Self.nobody
    request.pointee.previousWaiter = -1
    request.pointee.nextWaiter = firstWaiter
    if firstWaiter >= 0 { at(firstWaiter).pointee.previousWaiter = place }
    firstWaiter = place
  }

  mutating func endWait(_ place: Int32, _ now: UInt64) {
    charge(place, now)
    let request = at(place)
    let (previous, next) = (request.pointee.previousWaiter, request.pointee.nextWaiter)
    if previous >= 0 { at(previous).pointee.nextWaiter = next } else { firstWaiter = next }
    if next >= 0 { at(next).pointee.previousWaiter = previous }
    let length = now &- request.pointee.waitStart
    let cell = Int(request.pointee.operation) * 33 + Int(request.pointee.firstAhead)
    totals.cells[cell].waits &+= 1
    totals.waits &+= 1
    if request.pointee.trueNanoseconds == 0 { totals.falseWaits &+= 1 }
    totals.longest = max(totals.longest, length)
    totals.lengths.record(length)
  }

  private mutating func charge(_ place: Int32, _ now: UInt64) {
    let request = at(place)
    let nanoseconds = now &- request.pointee.lastCharge
    request.pointee.lastCharge = now
    let ahead = request.pointee.ahead
    let column = ahead >= 0 ? Int(at(ahead).pointee.operation) : Int(Self.nobody)
    let cell = Int(request.pointee.operation) * 33 + column
    totals.cells[cell].nanoseconds &+= nanoseconds
    if request.pointee.isConflict {
      request.pointee.trueNanoseconds &+= nanoseconds
    } else {
      totals.cells[cell].falseNanoseconds &+= nanoseconds
    }
  }

  /// Finds who is ahead of a waiter now.
  private mutating func attribute(_ place: Int32) {
    let request = at(place)
    var ahead: Int32 = -1
    var isConflict = false
    var other = first
    while other >= 0 {
      let one = at(other)
      let isAhead = one.pointee.state == .holding || one.pointee.sequence < request.pointee.sequence
      if isAhead, one.pointee.writes || request.pointee.writes,
        thread(of: other) != thread(of: place)
      {
        if overlap(one, request) {
          ahead = other
          isConflict = true
          break
        }
        if ahead < 0 { ahead = other }
      }
      other = one.pointee.next
    }
    request.pointee.ahead = ahead
    request.pointee.isConflict = isConflict
  }

  /// After a release: those who had it ahead look again.
  mutating func lookAgain(afterRelease place: Int32, _ now: UInt64) {
    var waiter = firstWaiter
    while waiter >= 0 {
      let request = at(waiter)
      // Under `.perVMA` others may have come in beside the queue.
      if request.pointee.ahead == place || policy == .perVMA && !request.pointee.isConflict {
        charge(waiter, now)
        attribute(waiter)
      }
      waiter = request.pointee.nextWaiter
    }
  }

  /// After a grant: it may be ahead of some that came earlier.
  mutating func lookAgain(afterGrant place: Int32, _ now: UInt64) {
    let sequence = at(place).pointee.sequence
    var waiter = firstWaiter
    while waiter >= 0 {
      let request = at(waiter)
      if !request.pointee.isConflict,
        request.pointee.sequence < sequence || policy == .perVMA || request.pointee.ahead < 0
      {
        charge(waiter, now)
        attribute(waiter)
      }
      waiter = request.pointee.nextWaiter
    }
  }
}

/// Lengths in logarithmic buckets of 1/16.
struct LengthHistogram {
  private(set) var counts = InlineArray<1024, UInt64>(repeating: 0)
  private(set) var total: UInt64 = 0

  mutating func record(_ value: UInt64) {
    counts[Self.bucket(value)] &+= 1
    total &+= 1
  }

  /// The value below which `fraction` of the values lie, within 1/16; 0 without values.
  func quantile(_ fraction: Double) -> UInt64 {
    guard total > 0 else { return 0 }
    let wanted = max(1, UInt64((fraction * Double(total)).rounded(.up)))
    var seen: UInt64 = 0
    for index in 0..<1024 {
      seen += counts[index]
      if seen >= wanted { return Self.upperBound(index) }
    }
    return .max
  }

  /// How many there are by powers of two of their length: the first is what is below 2 ns.
  var byPowerOfTwo: [UInt64] {
    var result = [UInt64](repeating: 0, count: 64)
    for index in 0..<1024 where counts[index] > 0 {
      let upper = Self.upperBound(index)
      result[upper < 2 ? 0 : 63 - upper.leadingZeroBitCount] += counts[index]
    }
    return result
  }

  private static func bucket(_ value: UInt64) -> Int {
    if value < 16 { return Int(value) }
    let exponent = 63 - value.leadingZeroBitCount
    return (exponent - 3) * 16 + Int(value >> UInt64(exponent - 4)) & 15
  }

  private static func upperBound(_ bucket: Int) -> UInt64 {
    if bucket < 16 { return UInt64(bucket) }
    let exponent = UInt64(bucket / 16 + 3)
    let width = (1 as UInt64) << (exponent - 4)
    return (16 + UInt64(bucket % 16)) * width + (width - 1)
  }
}
