// SPDX-License-Identifier: Apache-2.0
//
// Charges of limited counters.
//
// Guarantee: of the header of SpaceCounters.swift; R-3 of the acceptance table.
// Mechanism: an operation charges before it changes anything, all counters or none, and settles with what it
//   really did. In between the thread's slot is marked undecided.
//   A charge that its thread's credit and the pool do not cover recalls all credit, under the latch:
//   - It closes every credit word (a large negative number): nobody can charge any more, and what is taken
//     off meanwhile adds to the word. A charge that was made before is seen by the exchange that closes.
//   - It waits until no other slot is undecided. Who is undecided never waits for the latch or for a
//     lock that somebody waits under for a charge.
//   - It collects once more. At the instant before, nobody charges; what it finds is at least what was left then,
//     so a refusal is right at that instant.
// Source: the exact phase of Linux `__percpu_counter_limited_add`, without its shared lock on the way.

import CRangeland
import RangeLocks
import Synchronization

extension SpaceCounters {
  /// Added to a credit word that is closed. No sum of credits comes near it.
  private static var closure: Int64 { -(1 << 61) }

  /// What a credit word holds but for the closure.
  @inline(__always)
  static func withoutClosure(_ credit: Int64) -> Int64 {
    credit < closure / 2 ? credit - closure : credit
  }

  /// The word of a slot that says whether its thread has charged what it has not settled yet.
  @inline(__always)
  private func undecided(_ thread: Int) -> UnsafeMutablePointer<Atomic<Int64>> {
    (UnsafeMutableRawPointer(word(.totalVM, thread)) + SpaceCounter.count << 3)
      .assumingMemoryBound(to: Atomic<Int64>.self)
  }

  /// Whether any counter has a limit: without one nobody needs to charge ahead.
  @inline(__always)
  var hasLimits: Bool { shared.pointee.hasLimits.load(ordering: .relaxed) }

  // MARK: charges ahead of a change

  /// Charges what an operation may need; `nil` = a limit does not allow it, and nothing has changed.
  ///
  /// - Returns: what was charged. The thread is undecided until it calls `settle` with it, and must not wait for
  ///   the space lock or charge again before.
  func begin(_ wanted: Charge, _ context: Context) -> Charge? {
    if !hasLimits { return Charge() }
    return beginLimited(wanted, context)
  }

  @inline(never)
  private func beginLimited(_ wanted: Charge, _ context: Context) -> Charge? {
    let own = Int(context.pointee.index)
    _ = ownWord(.totalVM, context)
    // Published by the exchanges below: who closes a word after one of them sees it.
    undecided(own).pointee.store(1, ordering: .relaxed)
    var taken = 0
    while taken < SpaceCounter.limitedCount {
      let counter = SpaceCounter.limited(taken)
      if wanted.concerns(counter), !take(counter, wanted, own) { break }
      taken += 1
    }
    if taken == SpaceCounter.limitedCount {
      var granted = wanted
      granted.isCharged = true
      return granted
    }
    for i in 0..<taken {
      let counter = SpaceCounter.limited(i)
      word(counter, own).pointee.add(wanted[counter], ordering: .acquiringAndReleasing)
    }
    undecided(own).pointee.store(0, ordering: .releasing)
    return decide(wanted, own)
  }

  /// Charges the thread's own credit.
  @inline(__always)
  private func take(_ counter: SpaceCounter, _ wanted: Charge, _ own: Int) -> Bool {
    let amount = wanted[counter]
    let needed = amount + (counter == .mapCount ? wanted.spareAreas : 0)
    let credit = word(counter, own)
    // Acquires the exchange of `setLimit`: credit that came here after it was recalled (the thread's own
    // `uncharge`) is looked at together with the pool that the lower limit left.
    var seen = credit.pointee.load(ordering: .acquiring)
    if limited(counter).pointee.pool.load(ordering: .relaxed) < 0 { return false }
    while seen >= needed {
      // A recall may close it at any time. Releases the mark of the slot.
      let (done, current) = credit.pointee.weakCompareExchange(
        expected: seen, desired: seen - amount, ordering: .acquiringAndReleasing)
      if done { return true }
      seen = current
    }
    return false
  }

  /// Decides a charge on exact totals. What was asked for of `mapCount` may shrink.
  private func decide(_ wanted: Charge, _ own: Int) -> Charge? {
    let latch = shared
    latch.pointee.latch.lock(.innermost)
    defer { latch.pointee.latch.unlock(.innermost) }
    if let granted = grant(wanted, fromPools: true, own) { return granted }
    let slots = Int(shared.pointee.bound.load(ordering: .sequentiallyConsistent))
    SpaceCounter.forEachLimited { counter in
      if wanted.concerns(counter) { collect(counter, slots, leaving: Self.closure) }
    }
    for i in 0..<slots where i != own {
      while undecided(i).pointee.load(ordering: .acquiring) != 0 { rl_yield() }
    }
    SpaceCounter.forEachLimited { counter in
      if wanted.concerns(counter) { collect(counter, slots, leaving: Self.closure) }
    }
    let granted = grant(wanted, fromPools: false, own)
    SpaceCounter.forEachLimited { counter in
      if wanted.concerns(counter) { collect(counter, slots, leaving: 0) }
    }
    return granted
  }

  /// Moves all credit of a counter to its pool. Under the latch.
  private func collect(_ counter: SpaceCounter, _ slots: Int, leaving rest: Int64) {
    var sum: Int64 = 0
    for i in 0..<slots {
      sum += Self.withoutClosure(
        word(counter, i).pointee.exchange(rest, ordering: .acquiringAndReleasing))
    }
    let pool = limited(counter)
    pool.pointee.pool.store(pool.pointee.pool.load(ordering: .relaxed) + sum, ordering: .relaxed)
  }

  /// Charges the pools if they have enough. Under the latch.
  private func grant(_ wanted: Charge, fromPools isFirst: Bool, _ own: Int) -> Charge? {
    var granted = wanted
    granted.isCharged = true
    for i in 0..<SpaceCounter.limitedCount {
      let counter = SpaceCounter.limited(i)
      if !wanted.concerns(counter) { continue }
      let pool = limited(counter).pointee.pool.load(ordering: .relaxed)
      guard counter == .mapCount else {
        if pool < wanted[counter] { return nil }
        continue
      }
      if pool >= wanted.areas + wanted.spareAreas { continue }
      // Pools alone do not decide that there is no more.
      if isFirst || !wanted.areasMayBeFewer { return nil }
      granted.areas = max(0, min(wanted.areas, pool - wanted.spareAreas))
    }
    for i in 0..<SpaceCounter.limitedCount {
      let counter = SpaceCounter.limited(i)
      if !wanted.concerns(counter) { continue }
      let shared = limited(counter)
      var pool = shared.pointee.pool.load(ordering: .relaxed) - granted[counter]
      if isFirst {
        let credit = min(pool, counter.batch)
        word(counter, own).pointee.add(credit, ordering: .relaxed)
        pool -= credit
      }
      shared.pointee.pool.store(pool, ordering: .relaxed)
    }
    undecided(own).pointee.store(1, ordering: .relaxed)
    return granted
  }

  /// Ends a charge: what was charged becomes what really changed. The difference may be of either sign.
  func settle(_ granted: Charge, _ actual: Charge, _ context: Context) {
    for i in 0..<SpaceCounter.limitedCount {
      let counter = SpaceCounter.limited(i)
      let rest = granted[counter] - actual[counter]
      if rest > 0 { ownWord(counter, context).pointee.add(rest, ordering: .acquiringAndReleasing) }
    }
    undecided(Int(context.pointee.index)).pointee.store(0, ordering: .releasing)
    for i in 0..<SpaceCounter.limitedCount {
      let counter = SpaceCounter.limited(i)
      move(counter, max(0, actual[counter] - granted[counter]), context)
    }
  }

  /// Whether a charge of this counter is within the limit; decided as exactly as a charge, which it is.
  func allows(_ counter: SpaceCounter, _ wanted: Charge, _ context: Context) -> Bool {
    if limit(counter) == Self.unlimited { return true }
    guard let granted = begin(wanted, context) else { return false }
    settle(granted, Charge(), context)
    return true
  }

  // MARK: single charges

  /// Adds `amount` to a limited counter; `false` = the limit does not allow it, and nothing has changed.
  func charge(_ counter: SpaceCounter, _ amount: Int64, _ context: Context) -> Bool {
    assert(counter.isLimited && amount >= 0)
    var wanted = Charge()
    switch counter {
    case .totalVM: wanted.pages = amount
    case .dataVM: wanted.dataPages = amount
    case .lockedVM: wanted.lockedPages = amount
    case .committed: wanted.committedPages = amount
    case .resident: wanted.residentPages = amount
    default: wanted.areas = amount
    }
    guard let granted = beginLimited(wanted, context) else { return false }
    settle(granted, granted, context)
    return true
  }

  /// Adds `delta`, of either sign, whatever the limit is: for what has happened already.
  @inline(__always)
  func move(_ counter: SpaceCounter, _ delta: Int64, _ context: Context) {
    if delta == 0 { return }
    if delta < 0 { return uncharge(counter, -delta, context) }
    let credit = ownWord(counter, context)
    var seen = credit.pointee.load(ordering: .relaxed)
    while seen >= delta {
      // A recall may take it away at any time.
      let (done, current) = credit.pointee.weakCompareExchange(
        expected: seen, desired: seen - delta, ordering: .relaxed)
      if done { return }
      seen = current
    }
    moveSlow(counter, delta, credit)
  }

  @inline(never)
  private func moveSlow(
    _ counter: SpaceCounter, _ delta: Int64, _ credit: UnsafeMutablePointer<Atomic<Int64>>
  ) {
    let latch = shared
    latch.pointee.latch.lock(.innermost)
    let shared = limited(counter)
    var pool = shared.pointee.pool.load(ordering: .relaxed) - delta
    // More than there is makes the pool negative: then nothing is charged until it fits again.
    let more = min(max(pool, 0), counter.batch)
    credit.pointee.add(more, ordering: .relaxed)
    pool -= more
    shared.pointee.pool.store(pool, ordering: .relaxed)
    latch.pointee.latch.unlock(.innermost)
  }

  /// Takes `amount` off a limited counter.
  @inline(__always)
  func uncharge(_ counter: SpaceCounter, _ amount: Int64, _ context: Context) {
    assert(counter.isLimited && amount >= 0)
    if amount == 0 { return }
    let credit = ownWord(counter, context)
    // Acquires as in `take`.
    if credit.pointee.add(amount, ordering: .acquiringAndReleasing).newValue > 4 * counter.batch {
      giveBack(counter, credit)
    }
  }

  /// Returns what is more than a batch to the pool.
  @inline(never)
  private func giveBack(_ counter: SpaceCounter, _ credit: UnsafeMutablePointer<Atomic<Int64>>) {
    let latch = shared
    let limited = limited(counter)
    latch.pointee.latch.lock(.innermost)
    // Under the latch nobody else takes it; the owner is here.
    let surplus = credit.pointee.load(ordering: .relaxed) - counter.batch
    if surplus > 0 {
      credit.pointee.subtract(surplus, ordering: .relaxed)
      limited.pointee.pool.add(surplus, ordering: .relaxed)
    }
    latch.pointee.latch.unlock(.innermost)
  }

  // MARK: limits

  /// The limit of a limited counter; `unlimited` if it has none.
  func limit(_ counter: SpaceCounter) -> Int64 {
    limited(counter).pointee.limit.load(ordering: .relaxed)
  }

  /// Changes a limit. It may be lower than what is used: then charges are refused until it fits.
  func setLimit(_ counter: SpaceCounter, _ limit: Int64) {
    precondition(counter.isLimited && limit >= 0 && limit <= Self.unlimited)
    let latch = shared
    let limited = limited(counter)
    latch.pointee.latch.lock(.innermost)
    let old = limited.pointee.limit.exchange(limit, ordering: .relaxed)
    limited.pointee.pool.store(
      limited.pointee.pool.load(ordering: .relaxed) + limit - old, ordering: .relaxed)
    // Recalled, so that credit given under the old limit cannot be charged beyond the new one. Releases
    // the pool to `take`.
    collect(counter, Int(shared.pointee.bound.load(ordering: .sequentiallyConsistent)), leaving: 0)
    let hasLimits = (0..<SpaceCounter.limitedCount).contains {
      self.limit(SpaceCounter.limited($0)) != Self.unlimited
    }
    shared.pointee.hasLimits.store(hasLimits, ordering: .relaxed)
    latch.pointee.latch.unlock(.innermost)
  }
}

extension SpaceCounter {
  /// The counters that have a limit, in the order in which they are charged.
  @inline(__always)
  static func limited(_ i: Int) -> SpaceCounter { SpaceCounter(rawValue: i).unsafelyUnwrapped }

  @inline(__always)
  fileprivate static func forEachLimited(_ body: (SpaceCounter) -> Void) {
    for i in 0..<limitedCount { body(limited(i)) }
  }
}
