// SPDX-License-Identifier: Apache-2.0
//
// What a holder may do: read beside other readers, or write alone.

/// The mode of a request: readers share, a writer excludes everybody that overlaps it.
public enum LockMode: UInt8, Sendable {
  /// Shared with other readers.
  case read
  /// Alone.
  case write

  /// Whether a holder in this mode and one in `other` must not hold the same key at one time.
  @inlinable
  public func conflicts(with other: LockMode) -> Bool {
    rawValue | other.rawValue != 0
  }
}
