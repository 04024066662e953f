// SPDX-License-Identifier: Apache-2.0
//
// The tracing hook of a lock.

extension RangeLock {
  /// Lets `hook` be told of every request from now on; nil: nobody. A lock has one hook at most.
  ///
  /// It may be called at any time, while others use the lock too. Requests that are under way are told in part.
  /// Calls of the former hook that have begun may go on after this has returned; none begins.
  ///
  /// The hook runs on the thread that asks or releases, in the middle of its call, with no latch of the lock held, and at
  /// once on several threads. It may read clocks, allocate, write to memory of its own, take locks that are never held
  /// around a call of this lock, and change the hook. It must not ask this lock for a range or release one, and should be
  /// short: at `.released` the range is still held, and nobody who waits for it goes on before the hook returns.
  ///
  /// A downgrade, a shrink, and an upgrade are told as `.acquired` with the new mode and range and the number of the
  /// hold, an upgrade that may have to wait as `.started` before. A request for several ranges is told range by range.
  ///
  /// Without a hook tracing costs nothing: the switch is a state of the word that every fast path tests anyway
  /// (`Scripts/check-tracing-cost` counts the instructions). With one, the lock leaves whole-lock mode and no fast path
  /// is taken.
  public func setTracingHook(_ hook: (@Sendable (TraceEvent) -> Void)?) {
    if let hook {
      directory.observation.replaceHook(TraceHook(hook))
      directory.observe(.tracing, true)
    } else {
      directory.observe(.tracing, false)
      directory.observation.replaceHook(nil)
    }
  }
}
