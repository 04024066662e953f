// SPDX-License-Identifier: Apache-2.0
//
// What a tracing hook is told.
//
// Source: the three trace points of Linux' mmap_lock (start_locking, acquire_returned, released).

extension RangeLock {
  /// Something that happened to a request, as a tracing hook is told it.
  ///
  /// The events of one request: `.started`, then `.acquired`, then, if it was granted, `.released`.
  public struct TraceEvent: Sendable, Hashable {
    /// The three points.
    public enum Point: UInt8, Sendable {
      /// The request is about to look at the lock.
      case started
      /// The request is over: granted, or given up if `isGranted` is false.
      case acquired
      /// The hold is about to end. Told before, so that it comes before the `.acquired` of whoever waited for it.
      case released
    }

    public var point: Point
    /// The keys asked for, or held now.
    public var range: KeyRange
    /// The mode asked for, or held now.
    public var mode: LockMode
    /// False only at `.acquired`, for a request that failed, ran into its deadline, or was cancelled.
    public var isGranted: Bool
    /// Tells the holds of a lock apart while they hold: the same at `.acquired` and `.released`; 0 for a request
    /// that is no hold yet, or will be none. Numbers are used again.
    public var hold: UInt64
  }
}
