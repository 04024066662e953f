// SPDX-License-Identifier: Apache-2.0
//
// A granted range: the proof that its holder may touch the keys.
//
// Guarantee: released exactly once, by `release()` or when the value ends.
// Mechanism: a noncopyable value of two pointers; no reference counting. Checked builds keep a note beside them.
// Cost: as `Directory.release`.
// Changes of a hold are in RangeHold+Changes.swift.

/// A granted range. It cannot be copied; when it ends, the range is released.
///
/// It may be sent to another thread and released there. Its lock has to outlive it.
@frozen
public struct RangeHold: ~Copyable, @unchecked Sendable {
  // Sendable: there is one owner at a time, and release synchronises through latches and atomic operations.
  @usableFromInline var entry: EntryRef
  @usableFromInline let directory: Directory
  @usableFromInline let note: HoldNote

  @inlinable @inline(__always)
  init(entry: EntryRef, directory: Directory, _ site: CallSite) {
    self.entry = entry
    self.directory = directory
    note = directory.noteHold(entry, site)
  }

  @inlinable @inline(__always)
  deinit {
    note.end()
    directory.releaseHold(entry)
  }

  /// The keys that are held.
  public var range: KeyRange { entry.range }

  /// The mode they are held in now.
  public var mode: LockMode { entry.pointer.pointee.mode }

  /// Ends the hold and grants the requests that waited only for it; wakes nobody else. Never waits for another request.
  ///
  /// What was done under the hold happened before what every later conflicting hold does.
  @inlinable @inline(__always)
  public consuming func release() {
    note.end()
    let (entry, directory) = (entry, directory)
    discard self
    directory.releaseHold(entry)
  }

  /// Says that another thread or task may release the hold: from now on it counts as nobody's, and checked builds do not
  /// report who waits for it (<doc:CheckedBuilds>). Other builds do nothing here.
  @inlinable @inline(__always)
  public borrowing func makeTransferable() { note.disown() }
}
