// SPDX-License-Identifier: Apache-2.0
//
// A request from its beginning to its grant: in the directory, whatever mode the lock was in.
//
// Guarantee: as `RangeLock.lock` and `tryLock` say.
// Mechanism: leave whole-lock mode if need be; the fast path; a few polls; the slow path; waiting.
// Cost: as the paths.

import CRangeland

extension Directory {
  /// Waits for `range` until `deadline` (UInt64.max = for ever); nil when it passed first. See `acquire`.
  @inline(__always)
  func acquireGenerally(
    _ range: KeyRange, _ mode: LockMode, deadline: UInt64, _ site: CallSite
  ) -> EntryRef? {
    guard let entry = takeEntry(deadline: deadline) else { return nil }
    countRequest()
    if settle(range, mode, entry) || acquireFast(range, mode, entry)
      || acquirePolling(range, mode, entry)
    {
      return entry
    }
    return acquireWaiting(range, mode, entry, deadline: deadline, site) ? entry : nil
  }

  /// Takes `range` if nothing conflicts; nil otherwise, or when there is no memory.
  @usableFromInline @inline(never)
  func tryAcquire(_ range: KeyRange, _ mode: LockMode) -> EntryRef? {
    guard let entry = pool.take().map(EntryRef.init) else { return nil }
    countRequest()
    if settle(range, mode, entry) || acquireFast(range, mode, entry) { return entry }
    let isObserved = isObserved
    if isObserved { tellStarted(range, mode) }
    let isGranted = tryAcquireSlow(range, mode, entry)
    if isObserved { tellEnded(range, mode, isGranted ? entry : nil) }
    if isGranted { return entry }
    pool.give(entry.raw)
    return nil
  }

  private func tryAcquireSlow(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef) -> Bool {
    while true {
      switch acquireSlow(range, mode, entry, mayWait: false) {
      case .granted: return true
      case .moved: if settle(range, mode, entry) { return true }
      case .queued, .refused, .noMemory: return false
      }
    }
  }

  /// Asks for `range` without waiting for the grant, for a task; the outcomes are those of `acquireSlow`, never `.moved`.
  func ask(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef) -> Outcome {
    countRequest()
    while true {
      if settle(range, mode, entry) { return .granted }
      let outcome = acquireSlow(range, mode, entry, mayWait: true, mayBePassed: false)
      if outcome != .moved { return outcome }
    }
  }

  /// Publishes and waits; false when the deadline passed, and then `entry` is no longer ours.
  @inline(never)
  private func acquireWaiting(
    _ range: KeyRange, _ mode: LockMode, _ entry: EntryRef, deadline: UInt64, _ site: CallSite
  ) -> Bool {
    let isObserved = isObserved
    if isObserved { tellStarted(range, mode) }
    let isGranted = acquirePatiently(range, mode, entry, deadline: deadline, site)
    if isObserved { tellEnded(range, mode, isGranted ? entry : nil) }
    return isGranted
  }

  private func acquirePatiently(
    _ range: KeyRange, _ mode: LockMode, _ entry: EntryRef, deadline: UInt64, _ site: CallSite
  ) -> Bool {
    while true {
      if settle(range, mode, entry) { return true }
      switch acquireSlow(range, mode, entry, mayWait: true) {
      case .granted: return true
      case .moved: continue
      case .queued:
        counters.add(.contended)
        let note = noteWait(entry, site, canGiveUp: deadline != .max)
        let isGranted = wait(entry, deadline: deadline)
        note.end()
        if isGranted { counters.add(.handOffs) }
        return isGranted
      case .refused, .noMemory:
        if deadline != .max, rl_monotonic_ns() >= deadline {
          pool.give(entry.raw)
          return false
        }
        rl_yield()
      }
    }
  }

  /// Returns when the directory is the place to ask, or true if the word could be taken instead.
  @inline(__always)
  private func settle(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef) -> Bool {
    if header.pointee.word.load(ordering: .relaxed) == WholeWord.directory { return false }
    return settleSlow(range, mode, entry)
  }

  @inline(never)
  private func settleSlow(_ range: KeyRange, _ mode: LockMode, _ entry: EntryRef) -> Bool {
    while true {
      switch header.pointee.word.load(ordering: .relaxed) {
      case WholeWord.directory, WholeWord.observed: return false
      case WholeWord.free: if takeWord(range, mode, entry) { return true }
      default: leaveWhole()
      }
    }
  }

  /// Counts a request of the calling thread in a directory, and samples now and then.
  @inline(__always)
  private func countRequest() {
    let cache = pool.cache(rl_thread_index())
    let isSampleDue = !cache.pointee.isNoSampleDue
    cache.pointee.counts &+= NodeCache.oneRequest
    if isSampleDue { sample() }
  }

  /// A block for a request: waits for memory until the deadline.
  @inline(__always)
  private func takeEntry(deadline: UInt64) -> EntryRef? {
    pool.take().map(EntryRef.init) ?? takeEntrySlow(deadline: deadline)
  }

  @inline(never)
  private func takeEntrySlow(deadline: UInt64) -> EntryRef? {
    while deadline == .max || rl_monotonic_ns() < deadline {
      if let block = pool.take() { return EntryRef(block) }
      rl_yield()
    }
    return nil
  }
}
