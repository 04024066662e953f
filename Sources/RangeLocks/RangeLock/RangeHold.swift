// SPDX-License-Identifier: Apache-2.0
//
// A granted range: the proof that its holder may touch the keys.
//
// Guarantee: released exactly once, by `release()` or when the value ends.
// Mechanism: a noncopyable value of two pointers; no reference counting.
// Cost: as `Directory.release`.

/// A granted range. It cannot be copied; when it ends, the range is released.
///
/// It may be sent to another thread and released there. Its lock has to outlive it.
@frozen
public struct RangeHold: ~Copyable, @unchecked Sendable {
  // Sendable: there is one owner at a time, and release synchronises through latches and atomic operations.
  @usableFromInline var entry: EntryRef
  @usableFromInline let directory: Directory

  @inlinable @inline(__always)
  init(entry: EntryRef, directory: Directory) {
    self.entry = entry
    self.directory = directory
  }

  @inlinable @inline(__always)
  deinit { directory.releaseHold(entry) }

  /// The keys that are held.
  public var range: KeyRange { entry.range }

  /// The mode they are held in now.
  public var mode: LockMode { entry.pointer.pointee.mode }

  /// Ends the hold and grants the requests that waited only for it. Never waits for another request.
  @inlinable @inline(__always)
  public consuming func release() {
    let (entry, directory) = (entry, directory)
    discard self
    directory.releaseHold(entry)
  }

  /// Makes the mode weaker in one step: no writer comes between. A weaker hold stays as it is.
  ///
  /// Those that wait only for this hold, and do not conflict any more, enter; readers behind a waiting writer, and
  /// writers, go on waiting. Everything written under the hold is visible to them. Never waits.
  public mutating func downgrade(to mode: LockMode = .read) {
    directory.downgrade(entry, to: mode)
  }

  /// Makes a hold for `.upgradeableRead` one for writing: keeps new readers of its keys out and waits for those
  /// that hold. Writers that wait go on waiting behind this hold. A writing hold stays as it is.
  ///
  /// What was read under the hold is still true afterwards: no writer comes between. Nobody else can wait for an
  /// upgrade of the same keys, so this cannot deadlock with another one; it does wait for ever when the same
  /// thread holds a key for reading once more.
  ///
  /// - Precondition: the mode is not `.read`; for that there is `tryUpgrade()`.
  @available(*, noasync, message: "blocks the thread; use tryUpgrade in asynchronous code")
  public mutating func upgrade() {
    precondition(mode != .read, "RangeHold.upgrade: a plain reader may only try")
    _ = directory.upgrade(entry, mayWait: true)
  }

  /// Makes the hold one for writing if no other reader holds a key of it; true if it is one then. Never waits.
  ///
  /// On false the hold is as before. Waiting readers go on waiting, behind this hold. False also when the system has no
  /// memory for saying so.
  public mutating func tryUpgrade() -> Bool {
    if directory.isStripe(entry) {
      guard let own = directory.leaveStripeHolding(entry) else { return false }
      entry = own
    }
    return directory.upgrade(entry, mayWait: false)
  }

  /// Gives up the keys outside `range`. Those that wait only for them enter. Never waits. A reader of a hot range keeps
  /// all of it when the system has no memory for saying so.
  ///
  /// - Precondition: `range` is part of the hold's range.
  public mutating func shrink(to range: KeyRange) {
    precondition(self.range.contains(range), "RangeHold.shrink: the range is not part of the hold")
    if directory.isStripe(entry) {
      // Nothing to give up, or no memory to say so: then all is kept.
      if range == self.range { return }
      guard let own = directory.leaveStripeHolding(entry) else { return }
      entry = own
    }
    directory.shrink(entry, to: range)
  }
}
