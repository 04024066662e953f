// SPDX-License-Identifier: Apache-2.0
//
// The counters of a space: what it has mapped, and what of it is resident.
//
// Guarantee: a limited counter never exceeds its limit by a charge, and a charge is refused only if at some
//   instant the total, with every credit recalled and every undecided charge undone, does not allow it. All
//   values are exact when no operation runs, but for the high-water mark: of several threads each may have up to
//   `mostUntold` resident pages that it lags behind or is ahead by.
// Mechanism: per-thread slots of 128 bytes. A limited counter has a pool of what may still be charged;
//   threads take credit from it in batches and charge their own slot. Used = limit - pool - credits.
//   Near the limit a charge recalls the credits of all threads (SpaceCounters+Charges.swift). The other
//   counters are sums of slots. For the high-water mark a thread tells all when the resident pages that it has added and
//   taken away come to some number: a sum of slots at every unmap would take the lines of all threads that fault.
// Cost: one compare-and-swap on the thread's own line for a limited counter, a plain addition for another.
// Source: Linux lib/percpu_counter.c, `mm_counter` in struct mm_struct, and `vm_committed_as`, with an exact decision near the limit.

import CRangeland
import RangeLocks
import Synchronization

/// A counter of a space, in pages unless said otherwise. The raw value is its word in a slot.
enum SpaceCounter: Int, CaseIterable, Sendable {
  /// Everything mapped, `PROT_NONE` included (Linux `total_vm`). Limited: RLIMIT_AS.
  case totalVM
  /// Private and writable, not stack (Linux `data_vm`). Limited: RLIMIT_DATA.
  case dataVM
  /// Limited: RLIMIT_MEMLOCK.
  case lockedVM
  /// VMAs. Limited: vm.max_map_count.
  case mapCount
  /// Pages whose memory is promised (Linux `vm_committed_as`, of this space). Limited: strict overcommit.
  case committed
  /// Resident pages of all kinds. Limited, and counted in spaces that were made with such a limit only: faults of others
  /// shall not pay for it.
  case resident
  /// Linux `stack_vm`.
  case stackVM
  /// Executable, not writable, not stack (Linux `exec_vm`).
  case execVM
  /// Resident pages by kind (Linux `MM_ANONPAGES`, `MM_FILEPAGES`, `MM_SHMEMPAGES`).
  case rssAnonymous
  case rssFile
  case rssSharedMemory

  /// The first six have a limit.
  @inline(__always) var isLimited: Bool { rawValue < Self.limitedCount }
  static var limitedCount: Int { 6 }
  /// Words of a slot that counters take.
  static var count: Int { 11 }

  /// Whether it is a part of the resident set.
  @inline(__always) var isResidentKind: Bool { rawValue >= Self.rssAnonymous.rawValue }

  /// What a thread takes from the pool at a time: 1 GiB of pages, or 256 VMAs or resident pages.
  @inline(__always) var batch: Int64 { self == .mapCount || self == .resident ? 256 : 1 << 18 }
}

/// A handle: the space owns the memory. Sendable: an immutable pointer to atomics.
struct SpaceCounters: @unchecked Sendable {
  /// 8 lines of 128 bytes (six limited counters; what all share; the high-water mark), then the slots.
  private let memory: UnsafeMutableRawPointer

  private static var line: Int { 128 }
  private static var slotsOffset: Int { (SpaceCounter.limitedCount + 2) * line }
  private static var byteCount: Int { slotsOffset + Int(RL_MAX_THREADS) * line }

  /// No limit: larger than any space, small enough to add to.
  static var unlimited: Int64 { Int64.max / 4 }

  /// What is shared of a limited counter.
  struct Limited: ~Copyable {
    /// Written under the latch.
    let limit = Atomic<Int64>(SpaceCounters.unlimited)
    /// Negative after the limit was lowered below what is used: then no credit may be charged. Written
    /// under the latch; read without it at each charge.
    let pool = Atomic<Int64>(SpaceCounters.unlimited)
  }

  struct Shared: ~Copyable {
    /// Guards moves of credit between pools and slots; innermost.
    let latch = Latch()
    /// Whether any counter has a limit. Written under the latch.
    let hasLimits = Atomic<Bool>(false)
    /// Whether `resident` is counted. Set before the space is used.
    let countsResident = Atomic<Bool>(false)
    /// One past the highest thread index that has used a slot. Grows.
    let bound = Atomic<UInt32>(0)
  }

  /// On a line of its own, which unmaps only read as a rule.
  struct Peak: ~Copyable {
    /// Resident pages that threads have told of.
    let told = Atomic<Int64>(0)
    /// The largest resident set that was noted, in pages.
    let highWater = Atomic<Int64>(0)
  }

  /// Resident pages that a thread has added, or taken away, at most before it tells.
  static var mostUntold: Int64 { 128 }

  /// Makes counters that are all zero and unlimited; `nil` without memory.
  static func make() -> SpaceCounters? {
    guard let memory = rl_reserve(byteCount) else { return nil }
    for i in 0..<SpaceCounter.limitedCount {
      (memory + i * line).initializeMemory(as: Limited.self, to: Limited())
    }
    (memory + SpaceCounter.limitedCount * line).initializeMemory(as: Shared.self, to: Shared())
    (memory + (SpaceCounter.limitedCount + 1) * line).initializeMemory(as: Peak.self, to: Peak())
    return SpaceCounters(memory: memory)
  }

  func destroy() { _ = rl_release(memory, Self.byteCount) }

  @inline(__always)
  func limited(_ counter: SpaceCounter) -> UnsafeMutablePointer<Limited> {
    (memory + counter.rawValue * Self.line).assumingMemoryBound(to: Limited.self)
  }

  @inline(__always)
  var shared: UnsafeMutablePointer<Shared> {
    (memory + SpaceCounter.limitedCount * Self.line).assumingMemoryBound(to: Shared.self)
  }

  @inline(__always)
  private var peak: UnsafeMutablePointer<Peak> {
    (memory + (SpaceCounter.limitedCount + 1) * Self.line).assumingMemoryBound(to: Peak.self)
  }

  /// A word of a thread's slot. Zeroed memory is a valid atomic 0.
  @inline(__always)
  func word(_ counter: SpaceCounter, _ thread: Int) -> UnsafeMutablePointer<Atomic<Int64>> {
    (memory + Self.slotsOffset + thread * Self.line + counter.rawValue << 3)
      .assumingMemoryBound(to: Atomic<Int64>.self)
  }

  /// The word of the calling thread.
  @inline(__always)
  func ownWord(
    _ counter: SpaceCounter, _ context: Context
  ) -> UnsafeMutablePointer<Atomic<Int64>> {
    // The thread itself has raised the bound, or a thread with its index before it.
    if context.pointee.index >= shared.pointee.bound.load(ordering: .relaxed) { raise(context) }
    return word(counter, Int(context.pointee.index))
  }

  @inline(never)
  private func raise(_ context: Context) {
    // Sequentially consistent, before the first credit: a recall that misses the slot misses no credit,
    // because credit comes from the pool under the latch that the recall holds.
    shared.pointee.bound.max(context.pointee.index + 1, ordering: .sequentiallyConsistent)
  }

  // MARK: sums

  /// Adds to a counter without a limit. Touches the thread's own line only.
  @inline(__always)
  func add(_ counter: SpaceCounter, _ delta: Int64, _ context: Context) {
    assert(!counter.isLimited)
    let own = ownWord(counter, context)
    // Only the thread writes its word; readers sum.
    own.pointee.store(own.pointee.load(ordering: .relaxed) + delta, ordering: .relaxed)
    if counter.isResidentKind {
      let untold = untold(context)
      let now = untold.pointee.load(ordering: .relaxed) + delta
      untold.pointee.store(now, ordering: .relaxed)
      if now >= Self.mostUntold || now <= -Self.mostUntold { tell(now, untold) }
    }
  }

  /// What the calling thread has not told of the resident pages, in its slot. Only the thread touches it.
  @inline(__always)
  private func untold(_ context: Context) -> UnsafeMutablePointer<Atomic<Int64>> {
    // Behind the mark of the undecided: see SpaceCounters+Charges.swift.
    (memory + Self.slotsOffset + Int(context.pointee.index) * Self.line
      + (SpaceCounter.count + 1) << 3).assumingMemoryBound(to: Atomic<Int64>.self)
  }

  @inline(never)
  private func tell(_ pages: Int64, _ untold: UnsafeMutablePointer<Atomic<Int64>>) {
    untold.pointee.store(0, ordering: .relaxed)
    let now = peak.pointee.told.add(pages, ordering: .relaxed).newValue
    if now > peak.pointee.highWater.load(ordering: .relaxed) {
      peak.pointee.highWater.max(now, ordering: .relaxed)
    }
  }

  /// The value now: exact when no operation runs, never blocks one.
  func value(_ counter: SpaceCounter) -> Int64 {
    var sum: Int64 = 0
    for i in 0..<Int(shared.pointee.bound.load(ordering: .acquiring)) {
      let credit = word(counter, i).pointee.load(ordering: .relaxed)
      sum += counter.isLimited ? Self.withoutClosure(credit) : credit
    }
    if !counter.isLimited { return sum }
    let limited = limited(counter)
    return limited.pointee.limit.load(ordering: .relaxed)
      - limited.pointee.pool.load(ordering: .relaxed) - sum
  }

  /// Resident pages of all kinds.
  var rss: Int64 { value(.rssAnonymous) + value(.rssFile) + value(.rssSharedMemory) }

  /// Notes the resident set as a candidate for the high-water mark: before the calling thread takes pages away (Linux
  /// `update_hiwater_rss`).
  @inline(__always)
  func noteHighWater(_ context: Context) {
    let now =
      peak.pointee.told.load(ordering: .relaxed) + untold(context).pointee.load(ordering: .relaxed)
    if now > peak.pointee.highWater.load(ordering: .relaxed) {
      peak.pointee.highWater.max(now, ordering: .relaxed)
    }
  }

  /// The largest resident set there was, in pages (Linux `get_mm_hiwater_rss`).
  var highWaterRSS: Int64 { max(peak.pointee.highWater.load(ordering: .relaxed), rss) }
}
