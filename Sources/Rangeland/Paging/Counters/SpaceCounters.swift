// SPDX-License-Identifier: Apache-2.0
//
// The counters of a space: what it has mapped, and what of it is resident.
//
// Guarantee: a limited counter never exceeds its limit, and a charge is refused only if the total, with
//   every credit recalled, does not allow it. All values are exact when no operation runs.
// Mechanism: per-thread slots of 128 bytes. A limited counter has a pool of what may still be charged;
//   threads take credit from it in batches and charge their own slot. Used = limit - pool - credits.
//   Near the limit a charge recalls the credits of all threads; credits move between slots and pool
//   only under the counter's latch, so none can hide from a recall. The other counters are sums of slots.
// Cost: one compare-and-swap on the thread's own line for a limited counter, a plain addition for another.
// Source: Linux lib/percpu_counter.c and `vm_committed_as`, with an exact decision near the limit.

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
  /// Linux `stack_vm`.
  case stackVM
  /// Executable, not writable, not stack (Linux `exec_vm`).
  case execVM
  /// Resident pages by kind (Linux `MM_ANONPAGES`, `MM_FILEPAGES`, `MM_SHMEMPAGES`).
  case rssAnonymous
  case rssFile
  case rssSharedMemory

  /// The first four have a limit.
  @inline(__always) var isLimited: Bool { rawValue < Self.limitedCount }
  static var limitedCount: Int { 4 }

  /// What a thread takes from the pool at a time: 1 GiB of pages, or 256 VMAs.
  @inline(__always) var batch: Int64 { self == .mapCount ? 256 : 1 << 18 }
}

/// A handle: the space owns the memory. Sendable: an immutable pointer to atomics.
struct SpaceCounters: @unchecked Sendable {
  /// 5 lines of 128 bytes (four limited counters; the bound and the high-water mark), then the slots.
  private let memory: UnsafeMutableRawPointer

  private static var line: Int { 128 }
  private static var slotsOffset: Int { (SpaceCounter.limitedCount + 1) * line }
  private static var byteCount: Int { slotsOffset + Int(RL_MAX_THREADS) * line }

  /// No limit: larger than any space, small enough to add to.
  static var unlimited: Int64 { Int64.max / 4 }

  /// What is shared of a limited counter.
  private struct Limited: ~Copyable {
    /// Guards moves of credit between pool and slots; innermost.
    let latch = Latch()
    /// Written under the latch.
    let limit = Atomic<Int64>(SpaceCounters.unlimited)
    /// Negative after the limit was lowered below what is used: then no credit may be charged. Written
    /// under the latch; read without it at each charge.
    let pool = Atomic<Int64>(SpaceCounters.unlimited)
  }

  private struct Shared: ~Copyable {
    /// One past the highest thread index that has used a slot. Grows.
    let bound = Atomic<UInt32>(0)
    /// The largest resident set that was noted, in pages.
    let highWater = Atomic<Int64>(0)
  }

  /// Makes counters that are all zero and unlimited; `nil` without memory.
  static func make() -> SpaceCounters? {
    guard let memory = rl_reserve(byteCount) else { return nil }
    for i in 0..<SpaceCounter.limitedCount {
      (memory + i * line).initializeMemory(as: Limited.self, to: Limited())
    }
    (memory + SpaceCounter.limitedCount * line).initializeMemory(as: Shared.self, to: Shared())
    return SpaceCounters(memory: memory)
  }

  func destroy() { _ = rl_release(memory, Self.byteCount) }

  @inline(__always)
  private func limited(_ counter: SpaceCounter) -> UnsafeMutablePointer<Limited> {
    (memory + counter.rawValue * Self.line).assumingMemoryBound(to: Limited.self)
  }

  @inline(__always)
  private var shared: UnsafeMutablePointer<Shared> {
    (memory + SpaceCounter.limitedCount * Self.line).assumingMemoryBound(to: Shared.self)
  }

  /// A word of a thread's slot. Zeroed memory is a valid atomic 0.
  @inline(__always)
  private func word(_ counter: SpaceCounter, _ thread: Int) -> UnsafeMutablePointer<Atomic<Int64>> {
    (memory + Self.slotsOffset + thread * Self.line + counter.rawValue << 3)
      .assumingMemoryBound(to: Atomic<Int64>.self)
  }

  /// The word of the calling thread.
  @inline(__always)
  private func ownWord(
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

  // MARK: limited counters

  /// Adds `amount` to a limited counter; `false` = the limit does not allow it, and nothing has changed.
  @inline(__always)
  func charge(_ counter: SpaceCounter, _ amount: Int64, _ context: Context) -> Bool {
    assert(counter.isLimited && amount >= 0)
    let credit = ownWord(counter, context)
    // Acquires the exchange of `setLimit`: credit that came here after it was recalled (the thread's own
    // `uncharge`) is looked at together with the pool that the lower limit left.
    var seen = credit.pointee.load(ordering: .acquiring)
    if limited(counter).pointee.pool.load(ordering: .relaxed) >= 0 {
      while seen >= amount {
        // A recall may take it away at any time.
        let (done, current) = credit.pointee.weakCompareExchange(
          expected: seen, desired: seen - amount, ordering: .relaxed)
        if done { return true }
        seen = current
      }
    }
    return chargeSlow(counter, amount, credit)
  }

  @inline(never)
  private func chargeSlow(
    _ counter: SpaceCounter, _ amount: Int64, _ credit: UnsafeMutablePointer<Atomic<Int64>>
  ) -> Bool {
    let limited = limited(counter)
    limited.pointee.latch.lock(.innermost)
    defer { limited.pointee.latch.unlock(.innermost) }
    let pool = limited.pointee.pool.load(ordering: .relaxed)
    if pool >= amount {
      let taken = min(pool, max(amount, counter.batch))
      limited.pointee.pool.store(pool - taken, ordering: .relaxed)
      credit.pointee.add(taken - amount, ordering: .relaxed)
      return true
    }
    var total = pool
    for i in 0..<Int(shared.pointee.bound.load(ordering: .sequentiallyConsistent)) {
      total += word(counter, i).pointee.exchange(0, ordering: .relaxed)
    }
    let isAllowed = total >= amount
    limited.pointee.pool.store(isAllowed ? total - amount : total, ordering: .relaxed)
    return isAllowed
  }

  /// Takes `amount` off a limited counter.
  @inline(__always)
  func uncharge(_ counter: SpaceCounter, _ amount: Int64, _ context: Context) {
    assert(counter.isLimited && amount >= 0)
    if amount == 0 { return }
    let credit = ownWord(counter, context)
    // Acquires as in `charge`.
    if credit.pointee.add(amount, ordering: .acquiring).newValue > 4 * counter.batch {
      giveBack(counter, credit)
    }
  }

  /// Returns what is more than a batch to the pool.
  @inline(never)
  private func giveBack(_ counter: SpaceCounter, _ credit: UnsafeMutablePointer<Atomic<Int64>>) {
    let limited = limited(counter)
    limited.pointee.latch.lock(.innermost)
    // Under the latch nobody else takes it; the owner is here.
    let surplus = credit.pointee.load(ordering: .relaxed) - counter.batch
    if surplus > 0 {
      credit.pointee.subtract(surplus, ordering: .relaxed)
      limited.pointee.pool.add(surplus, ordering: .relaxed)
    }
    limited.pointee.latch.unlock(.innermost)
  }

  /// The limit of a limited counter; `unlimited` if it has none.
  func limit(_ counter: SpaceCounter) -> Int64 {
    limited(counter).pointee.limit.load(ordering: .relaxed)
  }

  /// Changes a limit. It may be lower than what is used: then charges are refused until it fits.
  func setLimit(_ counter: SpaceCounter, _ limit: Int64) {
    precondition(counter.isLimited && limit >= 0 && limit <= Self.unlimited)
    let limited = limited(counter)
    limited.pointee.latch.lock(.innermost)
    let old = limited.pointee.limit.exchange(limit, ordering: .relaxed)
    var pool = limited.pointee.pool.load(ordering: .relaxed) + limit - old
    limited.pointee.pool.store(pool, ordering: .relaxed)
    // Recalled, so that credit given under the old limit cannot be charged beyond the new one. Releases
    // the pool to `charge`.
    for i in 0..<Int(shared.pointee.bound.load(ordering: .sequentiallyConsistent)) {
      pool += word(counter, i).pointee.exchange(0, ordering: .acquiringAndReleasing)
    }
    limited.pointee.pool.store(pool, ordering: .relaxed)
    limited.pointee.latch.unlock(.innermost)
  }

  // MARK: sums

  /// Adds to a counter without a limit. Touches the thread's own line only.
  @inline(__always)
  func add(_ counter: SpaceCounter, _ delta: Int64, _ context: Context) {
    assert(!counter.isLimited)
    let own = ownWord(counter, context)
    // Only the thread writes its word; readers sum.
    own.pointee.store(own.pointee.load(ordering: .relaxed) + delta, ordering: .relaxed)
  }

  /// The value now: exact when no operation runs, never blocks one.
  func value(_ counter: SpaceCounter) -> Int64 {
    var sum: Int64 = 0
    for i in 0..<Int(shared.pointee.bound.load(ordering: .acquiring)) {
      sum += word(counter, i).pointee.load(ordering: .relaxed)
    }
    if !counter.isLimited { return sum }
    let limited = limited(counter)
    return limited.pointee.limit.load(ordering: .relaxed)
      - limited.pointee.pool.load(ordering: .relaxed) - sum
  }

  /// Resident pages of all kinds.
  var rss: Int64 { value(.rssAnonymous) + value(.rssFile) + value(.rssSharedMemory) }

  /// Notes the resident set as a candidate for the high-water mark: before pages are taken away (Linux
  /// `update_hiwater_rss`).
  func noteHighWater() { shared.pointee.highWater.max(rss, ordering: .relaxed) }

  /// The largest resident set there was, in pages (Linux `get_mm_hiwater_rss`).
  var highWaterRSS: Int64 { max(shared.pointee.highWater.load(ordering: .relaxed), rss) }
}
