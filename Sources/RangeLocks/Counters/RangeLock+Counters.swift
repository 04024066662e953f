// SPDX-License-Identifier: Apache-2.0
//
// The counters of a lock, as they are read.

extension RangeLock {
  /// What happened in a lock since it was made. Each number grows only.
  public struct Counters: Sendable, Hashable {
    /// Requests that were granted while `setCountsAcquisitions(true)` was in force, each range of a request for several
    /// and each upgrade for itself. Otherwise nothing is counted here: counting every grant would cost the fast paths
    /// a write that they do not make.
    public var acquisitions: UInt64
    /// Requests that had to wait: they were put in the queue behind a conflicting one. Those that a try met, and that
    /// failed, are not counted; one for several ranges counts once; an upgrade that has to wait for readers counts.
    public var contended: UInt64
    /// Times that a thread went to sleep, or a task was suspended, until it was granted a range. A thread polls first,
    /// so there may be fewer than `contended`; it may be woken for nothing, so there may be more.
    public var parks: UInt64
    /// Contended requests that were granted in the end. The others gave up, by deadline or cancellation, or still wait.
    public var handOffs: UInt64
    /// How often the lock went into or out of whole-lock mode.
    public var modeSwitches: UInt64
    /// How often a request that waited was put behind one that came later: waiting readers that a hold passes which
    /// becomes a writer (`RangeHold.upgrade`), counted one by one, which is all that first come, first served allows
    /// for; and in the throughput setting every waiter that a request passes, as it counts towards the bound of
    /// `Fairness.throughput`.
    public var overtakings: UInt64
  }

  /// The counters now. Waits for the latch of the mode only.
  public var counters: Counters {
    let stripes = directory.counters
    return Counters(
      acquisitions: stripes.sum(.acquisitions), contended: stripes.sum(.contended),
      parks: stripes.sum(.parks), handOffs: stripes.sum(.handOffs),
      modeSwitches: directory.modeSwitches, overtakings: stripes.sum(.overtakings))
  }

  /// Lets grants be counted from now on, or not any more. While they are, the lock leaves whole-lock mode and no fast
  /// path is taken, as with a tracing hook. At any time.
  public func setCountsAcquisitions(_ isOn: Bool) { directory.observe(.acquisitions, isOn) }

  /// Lets requests note when they began to wait or to hold from now on, for `Request.since`, or not any more. It costs
  /// what `setCountsAcquisitions` does, and two looks at the clock a request. At any time.
  public func setNotesTimes(_ isOn: Bool) { directory.observe(.times, isOn) }
}
