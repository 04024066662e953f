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
  @usableFromInline let entry: EntryRef
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

  /// Turns a writing hold into a reading one in one step: no writer comes between.
  ///
  /// Readers that wait only for this hold enter; those behind a waiting writer, and writers, go on waiting.
  /// Everything written under the hold is visible to them. A reading hold stays as it is.
  public mutating func downgrade() {
    directory.downgrade(entry)
  }
}
