// SPDX-License-Identifier: Apache-2.0
//
// The lock of a simulated space: who is granted, who waits, and for whom, under each policy.
//
// Guarantee: it decides as Sources/Rangeland/Locking and Sources/RangeLocks do; `SimulationDriftTests` holds the two
//   side by side.
// Mechanism: a list of all requests that hold or wait, in the order of their arrival. For a range lock a request counts
//   the earlier ones that conflict with it. The semaphore has its word, its queue and the pollers that are not in it yet.
// Cost: a request that is granted at once: one entry of a list; for a range lock one pass over those that are there.

import Rangeland

/// One request for the lock. A thread has two places: for the lock, and for the word of a VMA while it holds the lock.
struct LockRequest {
  enum State: UInt8 {
    case free, waiting, holding
  }
  /// Where a request for the semaphore waits.
  enum Place: UInt8 {
    case none, polling, queued
  }

  var start: UInt64 = 0
  var end: UInt64 = 0
  /// The second range of a request for two: both have one place in the queue. Empty = none.
  var secondStart: UInt64 = 0
  var secondEnd: UInt64 = 0
  /// Order of arrival.
  var sequence: UInt64 = 0
  var waitStart: UInt64 = 0
  var lastCharge: UInt64 = 0
  var trueNanoseconds: UInt64 = 0
  /// Neighbours in the order of arrival; -1 = none.
  var previous: Int32 = -1
  var next: Int32 = -1
  /// Neighbours among those that wait.
  var previousWaiter: Int32 = -1
  var nextWaiter: Int32 = -1
  /// Neighbours in the semaphore's queue, or among its pollers.
  var previousQueued: Int32 = -1
  var nextQueued: Int32 = -1
  /// Earlier requests that conflict (range lock).
  var conflicts: Int32 = 0
  /// The word of the VMA that is read; -1 = the lock itself is held.
  var cell: Int32 = -1
  /// Who is ahead now, a place; -1 = nobody.
  var ahead: Int32 = -1
  var operation: UInt8 = 0
  /// The operation that was ahead when the wait began; `LockModel.nobody` = none.
  var firstAhead: UInt8 = LockModel.nobody
  var state = State.free
  var place = Place.none
  var writes = false
  /// Whether `ahead` works on the same pages.
  var isConflict = false
  /// Whether it was told to try again, and found a holder.
  var wasWokenInVain = false
}

/// What a thread that waits is told.
enum LockSignal: UInt8 {
  /// It has the lock.
  case granted
  /// It may try again (`lookAgain`).
  case invited
}

struct LockModel: ~Copyable {
  /// An operation that does not exist.
  static let nobody: UInt8 = 32

  let policy: LockPolicy
  let threads: Int
  /// Two for each thread: `thread` and `threads + thread`.
  let requests: UnsafeMutablePointer<LockRequest>
  var areas: SimulatedAreas
  var totals = SimulatedWaits()

  // Everybody, in the order of arrival, and those that wait.
  var first: Int32 = -1
  var last: Int32 = -1
  var firstWaiter: Int32 = -1
  var sequence: UInt64 = 0

  // The semaphore.
  var writerHolds = false
  var readers = 0
  var handsOff = false
  var queueFirst: Int32 = -1
  var queueLast: Int32 = -1
  var pollFirst: Int32 = -1
  var pollLast: Int32 = -1

  /// Who is told what by the last call: thread * 2 + signal.
  let signals: UnsafeMutablePointer<UInt32>
  var signalCount = 0

  init(policy: LockPolicy, threads: Int, areas: consuming SimulatedAreas) {
    self.policy = policy
    self.threads = threads
    requests = .allocate(capacity: 2 * threads)
    requests.initialize(repeating: LockRequest(), count: 2 * threads)
    signals = .allocate(capacity: 4 * threads + 4)
    self.areas = areas
  }

  deinit {
    requests.deallocate()
    signals.deallocate()
  }

  /// The thread of a place.
  @inline(__always)
  func thread(of place: Int32) -> Int32 {
    place >= Int32(threads) ? place &- Int32(threads) : place
  }

  @inline(__always)
  func at(_ place: Int32) -> UnsafeMutablePointer<LockRequest> { requests + Int(place) }

  mutating func signal(_ place: Int32, _ signal: LockSignal) {
    signals[signalCount] = UInt32(thread(of: place)) << 1 | UInt32(signal.rawValue)
    signalCount &+= 1
  }

  /// Whether the range lock stands behind the policy.
  @inline(__always) var usesRanges: Bool { policy == .ranged || policy == .wholeRange }

  // MARK: requests

  /// Asks for the lock for a step; true = it is granted.
  mutating func request(_ thread: Int, _ step: SimulationStep, now: UInt64) -> Bool {
    let place = Int32(thread)
    let (start, end) = (step.start, step.end)
    let (writes, operation) = (step.writes, step.operation)
    if policy == .perVMA, !writes,
      operation == OperationKind.fault.rawValue || operation == OperationKind.dontNeed.rawValue
        || operation == OperationKind.advise.rawValue
    {
      let cell = areas.readableCell(
        start, end, needsIdentity: operation == OperationKind.fault.rawValue && step.writesPage)
      if cell >= 0 {
        areas.cells[Int(cell)].readers &+= 1
        announce(place, start, end, writes, operation)
        at(place).pointee.cell = cell
        at(place).pointee.state = .holding
        return true
      }
    }
    announce(place, start, end, writes, operation)
    if step.isMove {
      let target = areas.move(of: step).targetRange
      at(place).pointee.secondStart = target.lowerBound
      at(place).pointee.secondEnd = target.upperBound
    }
    let isGranted = usesRanges ? enterRanges(place) : enterSemaphore(place)
    if isGranted {
      at(place).pointee.state = .holding
      return true
    }
    beginWait(place, now)
    return false
  }

  private mutating func announce(
    _ place: Int32, _ start: UInt64, _ end: UInt64, _ writes: Bool, _ operation: UInt8
  ) {
    let request = at(place)
    sequence &+= 1
    request.pointee.start = start
    request.pointee.end = end
    request.pointee.secondEnd = 0
    request.pointee.sequence = sequence
    request.pointee.writes = writes
    request.pointee.operation = operation
    request.pointee.state = .waiting
    request.pointee.place = .none
    request.pointee.cell = -1
    request.pointee.conflicts = 0
    request.pointee.wasWokenInVain = false
    request.pointee.previous = last
    request.pointee.next = -1
    if last >= 0 { at(last).pointee.next = place } else { first = place }
    last = place
  }

  /// Takes a request out of the list of all.
  private mutating func remove(_ place: Int32) {
    let (previous, next) = (at(place).pointee.previous, at(place).pointee.next)
    if previous >= 0 { at(previous).pointee.next = next } else { first = next }
    if next >= 0 { at(next).pointee.previous = previous } else { last = previous }
    at(place).pointee.state = .free
  }

  /// The thread runs again, and has the lock: its wait is over.
  mutating func proceed(_ place: Int32, now: UInt64) {
    endWait(place, now)
    at(place).pointee.state = .holding
    lookAgain(afterGrant: place, now)
  }

  /// Gives the lock back; whoever is granted or invited is in `signals`.
  ///
  /// - Parameter step: its effect on the mappings is applied.
  mutating func release(_ thread: Int, _ step: SimulationStep, now: UInt64) {
    let place = Int32(thread)
    let request = at(place)
    if policy == .perVMA { applyEffect(step, place) }
    let cell = request.pointee.cell
    let writes = request.pointee.writes
    remove(place)
    if cell >= 0 {
      leaveCell(cell)
    } else if usesRanges {
      leaveRanges(place)
    } else {
      leaveSemaphore(writes: writes)
    }
    lookAgain(afterRelease: place, now)
  }

  /// A writer goes on as a reader (semaphore and per-VMA only).
  mutating func downgrade(_ thread: Int, _ step: SimulationStep, now: UInt64) {
    let place = Int32(thread)
    precondition(
      at(place).pointee.writes, "a simulated reader goes on as a reader: a bug of Rangeland")
    if policy == .perVMA { applyEffect(step, place) }
    at(place).pointee.writes = false
    writerHolds = false
    readers &+= 1
    passOn()
    lookAgain(afterRelease: place, now)
  }

  // MARK: ranges

  /// Whether two requests work on the same pages.
  @inline(__always)
  func overlap(
    _ one: UnsafeMutablePointer<LockRequest>, _ other: UnsafeMutablePointer<LockRequest>
  ) -> Bool {
    if one.pointee.start < other.pointee.end && other.pointee.start < one.pointee.end {
      return true
    }
    return one.pointee.secondEnd | other.pointee.secondEnd != 0 && overlapBeyondFirst(one, other)
  }

  @inline(never)
  private func overlapBeyondFirst(
    _ one: UnsafeMutablePointer<LockRequest>, _ other: UnsafeMutablePointer<LockRequest>
  ) -> Bool {
    let mine = (one.pointee.secondStart, one.pointee.secondEnd)
    let theirs = (other.pointee.secondStart, other.pointee.secondEnd)
    return max(mine.0, other.pointee.start) < min(mine.1, other.pointee.end)
      || max(one.pointee.start, theirs.0) < min(one.pointee.end, theirs.1)
      || max(mine.0, theirs.0) < min(mine.1, theirs.1)
  }

  /// Whether two requests exclude each other under the range lock.
  @inline(__always)
  private func excludes(
    _ one: UnsafeMutablePointer<LockRequest>, _ other: UnsafeMutablePointer<LockRequest>
  ) -> Bool {
    (one.pointee.writes || other.pointee.writes)
      && (policy == .wholeRange || overlap(one, other))
  }

  /// First come, first served: a request waits for all earlier ones that conflict, held or waiting.
  private mutating func enterRanges(_ place: Int32) -> Bool {
    let request = at(place)
    var count: Int32 = 0
    var other = request.pointee.previous
    while other >= 0 {
      if excludes(request, at(other)) { count &+= 1 }
      other = at(other).pointee.previous
    }
    request.pointee.conflicts = count
    return count == 0
  }

  private mutating func leaveRanges(_ place: Int32) {
    let request = at(place)
    var other = request.pointee.next
    while other >= 0 {
      let later = at(other)
      if later.pointee.conflicts > 0, excludes(request, later) {
        later.pointee.conflicts &-= 1
        if later.pointee.conflicts == 0 { signal(other, .granted) }
      }
      other = later.pointee.next
    }
  }
}
