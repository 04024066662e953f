// SPDX-License-Identifier: Apache-2.0
//
// Where a call stands in the source, and the notes that checked builds keep about requests.
//
// Guarantee: in builds that do not check (`RANGELOCKS_CHECKED` is not defined) the types of this file are empty, so that
// passing them, storing them and calling their functions is no instruction.
// Mechanism: `#fileID` and `#line` are constants of the caller; what takes them is inlined there.
// Cost: none; in checked builds see `RequestTable`.

/// Where a call stands. Empty in builds that do not check.
@usableFromInline @frozen
struct CallSite: Sendable {
  #if RANGELOCKS_CHECKED
    let fileID: StaticString
    let line: UInt

    @usableFromInline
    init(_ fileID: StaticString = #fileID, _ line: UInt = #line) {
      self.fileID = fileID
      self.line = line
    }
  #else
    @inlinable @inline(__always)
    init(_ fileID: StaticString = #fileID, _ line: UInt = #line) {}
  #endif
}

/// What a checked build keeps about a hold, or about the ranges of one that has several. Empty otherwise.
@usableFromInline @frozen
struct HoldNote: @unchecked Sendable {
  // Sendable: one owner at a time, as the hold that it is part of; what it names is latched.
  #if RANGELOCKS_CHECKED
    @usableFromInline var record: UnsafeMutablePointer<RequestRecord>?

    /// The hold is about to end.
    @usableFromInline func end() { if let record { RequestTable.shared.remove(record) } }

    /// The hold has, or is about to have, another range or mode.
    func change(_ range: KeyRange, _ mode: LockMode) {
      if let record { RequestTable.shared.change(record, range, mode) }
    }

    /// The hold is nobody's from now on.
    @usableFromInline func disown() { if let record { RequestTable.shared.disown(record) } }
  #else
    @inlinable @inline(__always) init() {}
    @inlinable @inline(__always) func end() {}
    @inline(__always) func change(_ range: KeyRange, _ mode: LockMode) {}
    @inlinable @inline(__always) func disown() {}
  #endif
}

/// What a checked build keeps about a request that waits. Empty otherwise.
struct WaitNote: @unchecked Sendable {
  // Sendable: as `HoldNote`.
  #if RANGELOCKS_CHECKED
    var record: UnsafeMutablePointer<RequestRecord>?

    /// The wait is over, whatever its end.
    func end() { if let record { RequestTable.shared.remove(record) } }

    /// The request is about to be taken back: whoever waits for it will not wait for ever.
    func willGiveUp() { if let record { RequestTable.shared.willGiveUp(record) } }
  #else
    @inline(__always) func end() {}
    @inline(__always) func willGiveUp() {}
  #endif
}

extension RangeLock {
  /// Whether this is a checked build, which reports a thread or task that would wait for itself, and locks that are taken in
  /// two orders: a debug build, or one with the package trait `CheckedLocks`. See <doc:CheckedBuilds>.
  public static var isChecked: Bool {
    #if RANGELOCKS_CHECKED
      true
    #else
      false
    #endif
  }
}
