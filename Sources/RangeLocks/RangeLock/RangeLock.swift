// SPDX-License-Identifier: Apache-2.0
//
// A lock over ranges of keys, for readers and writers.
//
// Guarantee: two holds that overlap in time share a key only if both read.
// Mechanism: a directory with levels of granules, see `Directory`; docs/range-lock.md has the whole protocol.
// Cost: four locked instructions for an uncontended acquire and release; 4 KiB idle.
// Source: the project's design, section 5; the semantics are those of Linux' mmap_lock with ranges.

import CRangeland

/// A reader/writer lock over ranges of `UInt64` keys.
///
/// Requests whose ranges share no key never wait for each other. Among requests that overlap in conflicting
/// modes the order is first come, first served, unless the configuration says otherwise: a request waits for every conflicting one that came before it,
/// held or waiting, and is granted by the release that it waited for last. So a waiting writer stops new
/// readers of its keys, and a wide request is not starved by a stream of narrow ones.
///
/// A hold may be released by any thread. Asking for a range that conflicts with a hold of the same thread
/// never returns; checked builds trap and name both calls (<doc:CheckedBuilds>). The lock must outlive its holds: keep
/// it in a stored property, or use `withReadLock` and `withWriteLock`.
public final class RangeLock: @unchecked Sendable {
  // Sendable: the only property is an immutable handle, and what it leads to is changed by atomic operations
  // and under the latches of the shards.
  @usableFromInline let directory: Directory

  /// How a lock is laid out.
  public struct Configuration: Sendable {
    /// The lowest level's granules have `1 << granuleShift` keys; 21 is a huge page of an address space.
    ///
    /// Choose it so that most requests are not larger. Between 1 and 60.
    public var granuleShift: UInt8

    /// Whether the lock is one word while holds do not meet in time; see docs/range-lock.md.
    ///
    /// Without it a request costs the same whether one thread uses the lock or many.
    public var usesWholeLockMode: Bool

    /// Who goes first of requests that overlap in conflicting modes.
    public var fairness: Fairness

    /// What kind of lock it is, for the check of lock order in checked builds; nil takes no part in it. Locks of
    /// one name are of one kind; there are at most 63 names. Other builds do not look at it. See <doc:CheckedBuilds>.
    public var name: StaticString?

    /// A configuration; the defaults suit address spaces.
    public init(
      granuleShift: UInt8 = 21, usesWholeLockMode: Bool = true,
      fairness: Fairness = .firstComeFirstServed, name: StaticString? = nil
    ) {
      self.granuleShift = granuleShift
      self.usesWholeLockMode = usesWholeLockMode
      self.fairness = fairness
      self.name = name
    }
  }

  /// Who goes first of requests that overlap in conflicting modes.
  public enum Fairness: Sendable, Hashable {
    /// A request waits for every conflicting one that came before it. Nobody is overtaken.
    case firstComeFirstServed
    /// A request, or a try, may pass conflicting ones that wait and do not hold: while a waiting thread wakes up the lock
    /// is used. Each waiting request is passed at most `mostPasses` times; then it is first come, first served
    /// for it. Among those that wait the order is that of their coming. Tasks that wait, requests for several ranges
    /// and upgrades are not passed.
    case throughput

    /// How many conflicting requests may pass one that waits, with `.throughput`.
    public static var mostPasses: Int { Int(WaitPasses.limit) }
  }

  /// Makes a lock that nobody holds.
  ///
  /// - Precondition: `configuration.granuleShift` is between 1 and 60.
  public convenience init(configuration: Configuration = .init()) {
    self.init(configuration: configuration, pool: .shared)
  }

  /// With a pool of its own: tests that count blocks share none with other tests.
  init(configuration: Configuration, pool: NodePool) {
    precondition(
      (1...60).contains(configuration.granuleShift), "RangeLock: granuleShift is between 1 and 60")
    directory = Directory(
      granuleShift: Int(configuration.granuleShift),
      entersWholeMode: configuration.usesWholeLockMode,
      mostPasses: configuration.fairness == .throughput ? WaitPasses.limit : 0, pool: pool)
    #if RANGELOCKS_CHECKED
      if let name = configuration.name {
        directory.header.pointee.lockClass = LockOrderGraph.shared.lockClass(named: name)
      }
    #endif
  }

  deinit {
    // Not in the condition: it also gives back what idle stripes have.
    let isUnused = directory.isUnused
    precondition(isUnused, "RangeLock: destroyed while a range is held or waited for")
    directory.destroy()
  }
}

// MARK: - Acquiring

extension RangeLock {
  /// Locks `range`, waiting for conflicting requests that came before: polls briefly, then sleeps.
  ///
  /// Everything written under conflicting holds that ended before is visible. `_ = lock.lock(...)` releases
  /// at once; name the hold.
  @available(*, noasync, message: "blocks the thread; use tryLock in asynchronous code")
  @inlinable @inline(__always)
  public func lock(
    over range: KeyRange, _ mode: LockMode, fileID: StaticString = #fileID, line: UInt = #line
  ) -> RangeHold {
    let site = CallSite(fileID, line)
    directory.checkOrder(range, mode, site)
    // Without a deadline there is always a hold in the end.
    let entry =
      acquireEasily(range, mode)
      ?? directory.acquire(range, mode, deadline: .max, site).unsafelyUnwrapped
    return RangeHold(entry: entry, directory: directory, site)
  }

  /// The ways that need no waiting and no look around; nil decides nothing.
  @inlinable @inline(__always)
  func acquireEasily(_ range: KeyRange, _ mode: LockMode) -> EntryRef? {
    let cache = directory.pool.cache(rl_thread_index())
    return directory.acquireWhole(range, mode, cache) ?? directory.acquireNarrow(range, mode, cache)
  }

  /// Locks `range` unless a conflicting request holds it or waits for it. Never waits, and overtakes nobody (with
  /// `Fairness.throughput` it may pass those that wait).
  ///
  /// A hold sees what `lock(over:_:)` would; nil says nothing about memory. Nil also when the system has no memory for
  /// the request.
  @inlinable @inline(__always)
  public func tryLock(
    over range: KeyRange, _ mode: LockMode, fileID: StaticString = #fileID, line: UInt = #line
  ) -> RangeHold? {
    guard let entry = acquireEasily(range, mode) ?? directory.tryAcquire(range, mode)
    else {
      return nil
    }
    return RangeHold(entry: entry, directory: directory, CallSite(fileID, line))
  }

  /// Locks `range` like `lock(over:_:)`, with the same place in the queue and the same memory effects, but gives up at
  /// `deadline`, CLOCK_MONOTONIC time in nanoseconds; one that has passed does not wait.
  ///
  /// - Returns: nil when the deadline passed first. A request that gave up stops nobody.
  @available(*, noasync, message: "blocks the thread; use tryLock in asynchronous code")
  @inlinable @inline(__always)
  public func lock(
    over range: KeyRange, _ mode: LockMode, deadline: UInt64, fileID: StaticString = #fileID,
    line: UInt = #line
  ) -> RangeHold? {
    let site = CallSite(fileID, line)
    if deadline == .max { directory.checkOrder(range, mode, site) }
    guard
      let entry = acquireEasily(range, mode)
        ?? directory.acquire(range, mode, deadline: deadline, site)
    else { return nil }
    return RangeHold(entry: entry, directory: directory, site)
  }
}
