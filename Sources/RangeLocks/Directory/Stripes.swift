// SPDX-License-Identifier: Apache-2.0
//
// Readers of one hot range, each in the stripe of its thread, so that they write no common line.
//
// Guarantee: as that of a hold in the shard. Whoever conflicts meets the standing entry in the shard's tree, closes the
// stripes and waits for the readers that are in them ("Stripes" in docs/range-lock.md).
// Mechanism: a standing entry is linked for the range, as if a reader held it all the time. While its stripes are
// open, to read that range is to add one to the word of one's stripe. Closing exchanges each word, so a reader is
// counted or comes too late; those counted take one off a common count when they leave, and the last ends the entry.
// Cost: one compare-and-swap to enter, one subtraction to leave; 16 KiB of reserved addresses a lock; to close, one
// exchange a stripe.
// Source: the kernel's percpu_ref, in behaviour only.

import CRangeland
import Synchronization

/// A stripe: `nodeStride` bytes, for good; zeroed memory is a closed stripe. It stands for the entry of its readers'
/// holds, so range, mode and shape lie where they do in an `Entry`; shape 0 says what it is.
struct Stripe {
  /// Slots with stripes of one range each, and stripes of a slot.
  static let slotCount = 8
  static let count = 16

  static let wordOffset = 24
  static let standingOffset = 32

  /// Of the word: how many readers are in it, and whether more may come; above it a number of the opening.
  static let countMask: UInt64 = 0xFFFF
  static let open: UInt64 = 0x10000
  static let opening: UInt64 = 0x20000
  /// What is in a closed stripe, for those to subtract from that leave it; and the most that may enter.
  static let closedCount: UInt64 = 0x8000
  static let mostReaders: UInt64 = 0x7FFF

  /// Readers that met another one of the same range, before stripes are opened for it.
  static let fewestMeetings: UInt32 = 16
  static let mostMeetings: UInt32 = 4096
  /// A time open that was worth it, in nanoseconds.
  static let worthwhile: UInt64 = 1_000_000
}

/// The part of a shard that is about stripes. All but `slot` is protected by the latch.
struct ShardReaders: ~Copyable {
  /// The slot + 1 whose stripes are open for a range of this shard; 0: none.
  let slot: Atomic<UInt32>
  /// How often readers of one range met since; how many meetings it takes, 0 for the fewest.
  var meetings: UInt32
  var meetingsNeeded: UInt32
  /// The standing entry, with open stripes or with readers that are still there.
  var standing: UnsafeMutableRawPointer?
  /// When the stripes were opened.
  var openedAt: UInt64
}

extension ShardRef {
  @inline(__always)
  var readers: UnsafeMutablePointer<ShardReaders> {
    (raw + 16).assumingMemoryBound(to: ShardReaders.self)
  }
}

extension EntryRef {
  /// Of a stripe: readers, `open`, number of the opening.
  @inline(__always)
  var stripeWord: UnsafeMutablePointer<Atomic<UInt64>> {
    (raw + Stripe.wordOffset).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// Of a stripe: the entry that stands for its readers.
  fileprivate var standing: EntryRef {
    EntryRef(raw.load(fromByteOffset: Stripe.standingOffset, as: UnsafeMutableRawPointer.self))
  }

  /// Of a stripe: a bound of its range, as seen by who is not in it.
  fileprivate func bound(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
    (raw + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// Of a standing entry: once its stripes are closed, the readers that are still there.
  fileprivate var readersLeft: UnsafeMutablePointer<Atomic<Int>> {
    (raw + 88).assumingMemoryBound(to: Atomic<Int>.self)
  }

  /// Of a standing entry: the slot of its stripes.
  fileprivate var slot: UnsafeMutablePointer<Int> {
    (raw + 96).assumingMemoryBound(to: Int.self)
  }
}

extension Directory {
  @inline(__always)
  func stripe(_ slot: Int, _ index: Int) -> EntryRef {
    let offset = (slot &* Stripe.count &+ index) &* nodeStride
    return EntryRef(raw + (Self.stripesOffset(header.pointee.topLevel) &+ offset))
  }

  /// A bit per slot in use.
  private var slotsInUse: UnsafeMutablePointer<Atomic<UInt64>> {
    (raw + nodeStride + 40).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// Whether this is a stripe, which stands for the hold of a reader in it.
  func isStripe(_ entry: EntryRef) -> Bool {
    let stripes = raw + Self.stripesOffset(header.pointee.topLevel)
    return entry.raw >= stripes
      && entry.raw < stripes + Stripe.slotCount * Stripe.count * nodeStride
  }

  // MARK: Readers

  /// Enters the caller's stripe of the shard if stripes are open for exactly `range`; nil decides nothing.
  @inline(__always)
  func enterStripe(
    _ range: KeyRange, _ shard: ShardRef, thread: Int
  ) -> EntryRef? {
    // Acquires what `openStripes` wrote.
    let slot = shard.readers.pointee.slot.load(ordering: .acquiring)
    if slot == 0 { return nil }
    let stripe = stripe(Int(slot &- 1), thread & (Stripe.count &- 1))
    let old = stripe.stripeWord.pointee.load(ordering: .acquiring)
    if old & Stripe.open == 0 || old & Stripe.countMask >= Stripe.mostReaders { return nil }
    // The slot may have another range by now, but then it has another word, too.
    if stripe.bound(0).pointee.load(ordering: .relaxed) != range.first
      || stripe.bound(8).pointee.load(ordering: .relaxed) != range.last
    {
      return nil
    }
    // Acquires the sections of writers from who opened; releases our reads above to who closes.
    return stripe.stripeWord.pointee.compareExchange(
      expected: old, desired: old &+ 1, successOrdering: .acquiringAndReleasing,
      failureOrdering: .relaxed
    ).exchanged ? stripe : nil
  }

  /// Ends the hold of a reader in a stripe.
  @inline(__always)
  func leaveStripe(_ stripe: EntryRef) {
    // Releases the section to who closes.
    let old = stripe.stripeWord.pointee.wrappingSubtract(1, ordering: .acquiringAndReleasing)
      .oldValue
    if old & Stripe.open != 0 { return }
    // We are counted: the standing entry stays until we take ourselves off.
    let standing = stripe.standing
    // Releases the section to the last, acquires those of the others.
    let left = standing.readersLeft.pointee.wrappingSubtract(1, ordering: .acquiringAndReleasing)
    if left.oldValue == 1 { endStanding(standing) }
  }

  /// The last reader of closed stripes ends the standing entry.
  @inline(never)
  private func endStanding(_ standing: EntryRef) {
    let shard = standing.onlyHome
    shard.lock(adding: 0)
    unlinkStanding(standing, shard)
    shard.checkInvariants(pending: 1)
    shard.unlock(removing: 1)
    if standing.tail.pointee.dependents.load(ordering: .relaxed) != nil {
      letGoDependents(standing)
    }
    pool.give(standing.raw)
  }

  /// Needs the latch; the count still has the entry.
  private func unlinkStanding(_ standing: EntryRef, _ shard: ShardRef) {
    shard.tree.pointee.remove(standing.link0)
    standing.checkAndClearStamp()
    shard.readers.pointee.standing = nil
    slotsInUse.pointee.bitwiseXor(1 << UInt64(standing.slot.pointee), ordering: .releasing)
  }

  /// Makes a hold that is in a stripe an entry of its own, so that it can be changed; nil when there is no memory.
  func leaveStripeHolding(_ stripe: EntryRef) -> EntryRef? {
    guard let block = pool.take() else { return nil }
    let entry = EntryRef(block)
    let shard = stripe.standing.onlyHome
    entry.initializeNarrow(
      stripe.range, .read, shard, UInt16(truncatingIfNeeded: rl_thread_index() &+ 1))
    // The keys are held all the time, first by the standing entry too: there is nobody to look for.
    shard.lock(adding: 1)
    shard.tree.pointee.insert(entry.link0, entry)
    shard.checkInvariants(pending: 0)
    shard.unlock(removing: 0)
    leaveStripe(stripe)
    return entry
  }

  // MARK: Opening and closing

  /// Notes that a reader of `range` is about to be granted beside others; opens stripes when that was often so. Needs
  /// the latch, with a raised count, and that nobody conflicts.
  @inline(never)
  func noteMeeting(_ range: KeyRange, _ shard: ShardRef) {
    let readers = shard.readers
    guard readers.pointee.standing == nil, let root = shard.tree.pointee.root,
      root.entry.range == range
    else { return }
    readers.pointee.meetings &+= 1
    if readers.pointee.meetings < max(Stripe.fewestMeetings, readers.pointee.meetingsNeeded) {
      return
    }
    readers.pointee.meetings = 0
    openStripes(range, shard)
  }

  private func openStripes(_ range: KeyRange, _ shard: ShardRef) {
    guard let slot = takeSlot() else { return }
    guard let block = pool.take() else {
      slotsInUse.pointee.bitwiseXor(1 << UInt64(slot), ordering: .releasing)
      return
    }
    let standing = EntryRef(block)
    standing.initializeNarrow(range, .read, shard, .max)
    standing.pointer.pointee.state.store(Entry.standing, ordering: .relaxed)
    standing.readersLeft.pointee.store(0, ordering: .relaxed)
    standing.slot.pointee = slot
    shard.raise()
    shard.tree.pointee.insert(standing.link0, standing)
    shard.readers.pointee.standing = standing.raw
    shard.readers.pointee.openedAt = rl_monotonic_ns()
    for index in 0..<Stripe.count {
      let stripe = stripe(slot, index)
      stripe.bound(0).pointee.store(range.first, ordering: .relaxed)
      stripe.bound(8).pointee.store(range.last, ordering: .relaxed)
      stripe.raw.storeBytes(
        of: standing.raw, toByteOffset: Stripe.standingOffset, as: UnsafeMutableRawPointer.self)
      let old = stripe.stripeWord.pointee.load(ordering: .relaxed)
      // Releases the range, and the sections of writers that we acquired with the latch.
      stripe.stripeWord.pointee.store(
        (old / Stripe.opening &+ 1) &* Stripe.opening | Stripe.open, ordering: .releasing)
    }
    // Releases the same to who finds the slot.
    shard.readers.pointee.slot.store(UInt32(slot) + 1, ordering: .releasing)
  }

  private func takeSlot() -> Int? {
    var old = slotsInUse.pointee.load(ordering: .relaxed)
    while true {
      let slot = (~old).trailingZeroBitCount
      if slot >= Stripe.slotCount { return nil }
      // Acquires the slot from who gave it back.
      let result = slotsInUse.pointee.compareExchange(
        expected: old, desired: old | 1 << UInt64(slot), ordering: .acquiring)
      if result.exchanged { return slot }
      old = result.original
    }
  }

  /// Closes the open stripes of a shard: the standing entry goes, or becomes one that ends with its last reader. Needs
  /// the latch.
  @inline(never)
  func closeStripes(_ shard: ShardRef) {
    let readers = shard.readers
    guard let raw = readers.pointee.standing, readers.pointee.slot.load(ordering: .relaxed) != 0
    else { return }
    let standing = EntryRef(raw)
    readers.pointee.slot.store(0, ordering: .relaxed)
    var inside = 0
    for index in 0..<Stripe.count {
      let word = stripe(standing.slot.pointee, index).stripeWord
      let opening = word.pointee.load(ordering: .relaxed) & ~(Stripe.opening - 1)
      // Acquires the sections of readers that have left; who comes later finds it closed.
      let old = word.pointee.exchange(
        opening | Stripe.closedCount, ordering: .acquiringAndReleasing)
      inside += Int(old & Stripe.countMask)
    }
    let lived = rl_monotonic_ns() &- readers.pointee.openedAt
    readers.pointee.meetingsNeeded =
      lived >= Stripe.worthwhile
      ? 0
      : min(Stripe.mostMeetings, max(Stripe.fewestMeetings, readers.pointee.meetingsNeeded) * 2)
    // Some may have left already and taken themselves off: then it is below zero until here.
    let left = standing.readersLeft.pointee.wrappingAdd(inside, ordering: .acquiringAndReleasing)
    if left.newValue != 0 { return }
    unlinkStanding(standing, shard)
    shard.lower()
    pool.give(raw)
  }

  /// Closes stripes that nobody is in.
  func closeIdleStripes() {
    var rest = slotsInUse.pointee.load(ordering: .relaxed)
    while rest != 0 {
      let slot = rest.trailingZeroBitCount
      rest &= rest - 1
      // A hint; any shard may be asked.
      let granule = Self.granule(
        stripe(slot, 0).bound(0).pointee.load(ordering: .relaxed), header.pointee.granuleShift)
      let shard = shard(0, index: Self.shardIndex(granule))
      shard.lock(adding: 0)
      if let standing = shard.readers.pointee.standing, readersInside(EntryRef(standing)) == 0 {
        closeStripes(shard)
      }
      shard.unlock(removing: 0)
    }
  }

  /// The readers in the stripes of a standing entry. Needs the latch.
  func readersInside(_ standing: EntryRef) -> Int {
    var inside = standing.readersLeft.pointee.load(ordering: .relaxed)
    for index in 0..<Stripe.count {
      let word = stripe(standing.slot.pointee, index).stripeWord.pointee.load(ordering: .relaxed)
      if word & Stripe.open != 0 { inside += Int(word & Stripe.countMask) }
    }
    return inside
  }
}
