// SPDX-License-Identifier: Apache-2.0
//
// All holds and all waits of the process, of all locks, by owner: what checked builds know.
//
// Guarantee: who is about to wait, without a deadline, for something that cannot end before it goes on itself is told so: a
// hold of its own, a queue that stands behind a hold of its own, or a circle of owners. Nobody else is told.
// Mechanism: lists by owner, each under a latch. A wait is noted when the request is in the queue, under all latches, and
// then all that it waits for is followed: of those that make a circle the last one to be noted finds it.
// Cost: a latch to acquire and one to release, of a line that few others write; a search through all records for a
// request that waits. About 200 bytes a hold or wait, kept for the next; no limit but memory.
// Lock order inside: the latches in order of their index; all of them are leaves.
// Source: the kernel's lockdep, in behaviour only.

#if RANGELOCKS_CHECKED
  import CRangeland

  /// The handle. Its memory is never freed.
  struct RequestTable: @unchecked Sendable {
    // Sendable: an immutable address; what is there is latched.
    private let raw: UnsafeMutableRawPointer

    static let shared = RequestTable()
    private static let shardCount = 64

    typealias Record = UnsafeMutablePointer<RequestRecord>

    private init() {
      let bytes = Self.shardCount * nodeStride
      guard let raw = rl_reserve(bytes) else {
        fatalError("RangeLocks: no address space for \(bytes) bytes of checks")
      }
      self.raw = raw
    }

    private func latch(_ shard: Int) -> UnsafeMutablePointer<Latch> {
      (raw + shard * nodeStride).assumingMemoryBound(to: Latch.self)
    }

    /// The records of the owners that hash to a list. Protected by its latch.
    private func head(_ shard: Int) -> UnsafeMutablePointer<Record?> {
      (raw + shard * nodeStride + 64).assumingMemoryBound(to: Record?.self)
    }

    /// Records for use again, linked by `next`. Protected by the same latch.
    private func free(_ shard: Int) -> UnsafeMutablePointer<Record?> {
      (raw + shard * nodeStride + 72).assumingMemoryBound(to: Record?.self)
    }

    private static func shard(_ owner: UInt64) -> Int { Int(owner >> 1) & (shardCount - 1) }

    // MARK: Keeping

    func insertHold(_ record: RequestRecord) -> Record {
      let shard = Self.shard(record.owner)
      latch(shard).pointee.lock()
      defer { latch(shard).pointee.unlock() }
      return insertLocked(record, shard)
    }

    /// Notes the ranges of one request of the caller, which is in the queue, and reports a wait that cannot end.
    func insertWait(_ records: [RequestRecord]) -> Record? {
      lockAll()
      defer { unlockAll() }
      var head: Record?
      for record in records {
        var record = record
        record.sibling = head
        head = insertLocked(record, Self.shard(record.owner))
      }
      if let head, let circle = circle(from: head) { report(circle) }
      return head
    }

    private func insertLocked(_ record: RequestRecord, _ shard: Int) -> Record {
      let (head, free) = (head(shard), free(shard))
      let new = free.pointee ?? Record.allocate(capacity: 1)
      if free.pointee != nil { free.pointee = new.pointee.next }
      new.initialize(to: record)
      new.pointee.shard = shard
      new.pointee.next = head.pointee
      head.pointee?.pointee.previous = new
      head.pointee = new
      return new
    }

    /// Forgets a request.
    func remove(_ record: Record) {
      forAll(record) { record, shard in
        if let next = record.pointee.next { next.pointee.previous = record.pointee.previous }
        if let previous = record.pointee.previous {
          previous.pointee.next = record.pointee.next
        } else {
          head(shard).pointee = record.pointee.next
        }
        record.pointee.next = free(shard).pointee
        free(shard).pointee = record
      }
    }

    func change(_ record: Record, _ range: KeyRange, _ mode: LockMode) {
      forAll(record) { record, _ in record.pointee.piece = RangeRequest(range, mode) }
    }

    func disown(_ record: Record) {
      forAll(record) { record, _ in record.pointee.owner = RequestOwner.nobody }
    }

    func willGiveUp(_ record: Record) {
      forAll(record) { record, _ in record.pointee.canGiveUp = true }
    }

    /// Calls `body` for each range of a request under the latch of its list.
    private func forAll(_ record: Record, _ body: (Record, Int) -> Void) {
      // Set before it was inserted: the ranges of one request are in one list.
      let shard = record.pointee.shard
      latch(shard).pointee.lock()
      defer { latch(shard).pointee.unlock() }
      var next: Record? = record
      while let record = next {
        next = record.pointee.sibling
        body(record, shard)
      }
    }

    /// What the caller holds, but for what is transferable.
    func holdsOfCaller() -> [RequestRecord] {
      let owner = RequestOwner.current
      let shard = Self.shard(owner)
      latch(shard).pointee.lock()
      defer { latch(shard).pointee.unlock() }
      var found: [RequestRecord] = []
      forEach(in: shard) {
        if $0.pointee.owner == owner, $0.pointee.state == .holding { found.append($0.pointee) }
      }
      return found
    }

    // MARK: Looking for a circle

    private func lockAll() {
      for shard in 0..<Self.shardCount { latch(shard).pointee.lock() }
    }

    private func unlockAll() {
      for shard in 0..<Self.shardCount { latch(shard).pointee.unlock() }
    }

    private func forEach(in shard: Int, _ body: (Record) -> Void) {
      var next = head(shard).pointee
      while let record = next {
        next = record.pointee.next
        body(record)
      }
    }

    private func forEach(_ body: (Record) -> Void) {
      for shard in 0..<Self.shardCount where head(shard).pointee != nil {
        forEach(in: shard, body)
      }
    }

    /// One owner waits for another: with which request, for which.
    struct Step {
      var waiting: Record
      var blocker: Record
    }

    /// Who waits for whom, from the owner of `start` back to it; nil if it does not come back. Needs all latches.
    private func circle(from start: Record) -> [Step]? {
      let me = start.pointee.owner
      if !isWaitedFor(me) { return nil }
      // By owner: how it was reached.
      var reached: [UInt64: Step] = [:]
      var open = [me]
      while let owner = open.popLast() {
        var found: Step?
        forEach(in: Self.shard(owner)) { waiting in
          if found != nil || waiting.pointee.owner != owner || waiting.pointee.state == .holding
            || waiting.pointee.canGiveUp
          {
            return
          }
          forEach { other in
            if found != nil || !waiting.pointee.waits(for: other) { return }
            let next = other.pointee.owner
            let step = Step(waiting: waiting, blocker: other)
            if next == me {
              found = step
            } else if next != RequestOwner.nobody, reached[next] == nil {
              reached[next] = step
              open.append(next)
            }
          }
        }
        if let found {
          var steps = [found]
          while let first = steps.first, first.waiting.pointee.owner != me {
            steps.insert(reached[first.waiting.pointee.owner]!, at: 0)
          }
          return steps
        }
      }
      return nil
    }

    /// Whether a request that cannot give up waits for something of `owner`: without one there is no circle.
    private func isWaitedFor(_ owner: UInt64) -> Bool {
      var own: [Record] = []
      forEach(in: Self.shard(owner)) { if $0.pointee.owner == owner { own.append($0) } }
      var isWaitedFor = false
      forEach { record in
        if isWaitedFor || record.pointee.state == .holding || record.pointee.canGiveUp { return }
        isWaitedFor = own.contains { record.pointee.waits(for: $0) }
      }
      return isWaitedFor
    }
  }
#endif
