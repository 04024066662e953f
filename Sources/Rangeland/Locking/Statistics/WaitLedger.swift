// SPDX-License-Identifier: Apache-2.0
//
// Who waits for the space lock, for whom, and whether the wait is a *false* one.
//
// A wait is false at an instant when no holder and no earlier waiter ahead of it overlaps it in an
// incompatible mode (docs/design.md section 3): the range lock would not have made it wait.
// Guarantee: uncontended requests touch only slots of their own thread; nothing is shared.
// Mechanism: each thread publishes its requests in its slots. A request that has to wait registers
//   under the ledger's latch; whenever a request is released or granted while somebody waits, every
//   waiter is charged for the stretch that ended and looks again at who is ahead.
// Cost: a handful of stores a request; O(waiters x threads) at a release while somebody waits.
// Exists only when statistics are on.

import CRangeland
import RangeLocks
import Synchronization

struct WaitLedger: ~Copyable {
  static var slotsPerThread: Int { 4 }
  /// Operations are fewer.
  static var operationSlots: Int { 32 }

  let slots: LedgerSlotRef
  /// Requests by thread and operation, written by their thread only.
  let requests: UnsafeMutablePointer<Atomic<UInt64>>
  let latch = Latch()
  /// How many wait: read by every release. Changed under the latch.
  let waiting = Atomic<UInt32>(0)
  /// What the latch guards. Apart from the ledger, which threads read without it: a change of a field is an access
  /// to its whole struct.
  let guarded: UnsafeMutablePointer<Guarded>

  struct Guarded {
    /// Those that wait now.
    var firstWaiter: LedgerSlotRef?
    var totals = WaitTotals()
  }

  private static var slotCount: Int { Int(RL_MAX_THREADS) * slotsPerThread }
  private static var slotBytes: Int { slotCount * MemoryLayout<LedgerSlot>.stride }
  private static var requestBytes: Int { Int(RL_MAX_THREADS) * operationSlots * 8 }

  /// A ledger in lazily committed memory: zeroed memory is a free slot.
  static func make() -> UnsafeMutablePointer<WaitLedger> {
    guard let slots = rl_reserve(slotBytes), let requests = rl_reserve(requestBytes) else {
      fatalError("AddressSpace: no memory for statistics; make the space without them")
    }
    let ledger = UnsafeMutablePointer<WaitLedger>.allocate(capacity: 1)
    ledger.initialize(
      to: WaitLedger(
        slots: slots.bindMemory(to: LedgerSlot.self, capacity: slotCount),
        requests: requests.bindMemory(
          to: Atomic<UInt64>.self, capacity: Int(RL_MAX_THREADS) * operationSlots)))
    return ledger
  }

  private init(slots: LedgerSlotRef, requests: UnsafeMutablePointer<Atomic<UInt64>>) {
    self.slots = slots
    self.requests = requests
    guarded = .allocate(capacity: 1)
    guarded.initialize(to: Guarded())
  }

  static func destroy(_ ledger: UnsafeMutablePointer<WaitLedger>) {
    _ = rl_release(UnsafeMutableRawPointer(ledger.pointee.slots), slotBytes)
    _ = rl_release(UnsafeMutableRawPointer(ledger.pointee.requests), requestBytes)
    ledger.pointee.guarded.deinitialize(count: 1)
    ledger.pointee.guarded.deallocate()
    ledger.deinitialize(count: 1)
    ledger.deallocate()
  }

  /// Announces a request of the calling thread, before it tries the lock.
  ///
  /// - Parameter range: `nil` while the operation does not know it yet.
  func announce(
    _ range: AddressRange?, _ mode: LockMode, _ operation: OperationKind
  ) -> LedgerSlotRef {
    let thread = Int(rl_thread_index())
    let slot = freeSlot(thread)
    slot.pointee.start.store(range?.start ?? 0, ordering: .relaxed)
    slot.pointee.end.store(range?.end ?? 0, ordering: .relaxed)
    slot.pointee.secondEnd.store(0, ordering: .relaxed)
    slot.pointee.traits.store(
      LedgerSlot.traits(mode, known: range != nil, operation), ordering: .relaxed)
    slot.pointee.sequence.store(rl_cycles(), ordering: .relaxed)
    slot.pointee.state.store(LedgerSlot.waiting, ordering: .releasing)
    let counter = requests + thread * Self.operationSlots + Int(operation.rawValue)
    counter.pointee.store(counter.pointee.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    return slot
  }

  private func freeSlot(_ thread: Int) -> LedgerSlotRef {
    for i in 0..<Self.slotsPerThread {
      let slot = slots + thread * Self.slotsPerThread + i
      if slot.pointee.state.load(ordering: .relaxed) == LedgerSlot.free { return slot }
    }
    fatalError("WaitLedger: a thread holds more than \(Self.slotsPerThread) requests at once")
  }

  /// The request was granted without a wait.
  @inline(__always)
  func granted(_ slot: LedgerSlotRef) {
    slot.pointee.state.store(LedgerSlot.holding, ordering: .releasing)
  }

  /// The request was given up without a grant: a try that failed.
  func abandoned(_ slot: LedgerSlotRef) {
    slot.pointee.state.store(LedgerSlot.free, ordering: .releasing)
  }

  /// The holder is about to release.
  @inline(__always)
  func willRelease(_ slot: LedgerSlotRef) {
    slot.pointee.state.store(LedgerSlot.free, ordering: .sequentiallyConsistent)
  }
}

/// What the waits of a ledger add up to.
struct WaitTotals {
  var cells = InlineArray<1056, Cell>(repeating: Cell())
  var waits: UInt64 = 0
  var falseWaits: UInt64 = 0
  var unclassifiedWaits: UInt64 = 0
  var histogram = WaitHistogram()

  /// One pair of operation and blocking operation.
  struct Cell {
    var waits: UInt64 = 0
    var nanoseconds: UInt64 = 0
    var falseNanoseconds: UInt64 = 0
    var unclassifiedNanoseconds: UInt64 = 0
  }

  /// Row of the operation (at most 32), column of the blocker; column 32 is `LedgerSlot.nobody`.
  static func index(_ operation: UInt8, _ blocker: UInt8) -> Int {
    Int(operation) * 33 + (blocker == LedgerSlot.nobody ? 32 : Int(blocker))
  }
}
