// SPDX-License-Identifier: Apache-2.0
//
// What a holder may do: read beside other readers, the same with the right to become a writer, or write alone.

/// The mode of a request: readers share, a writer excludes everybody that overlaps it.
public enum LockMode: UInt8, Sendable {
  /// Shared with other readers.
  case read = 0
  /// Shared with readers, but with no other `.upgradeableRead`: so its holder can wait to become a writer
  /// without ever meeting another who does.
  case upgradeableRead = 1
  /// Alone.
  case write = 2

  /// Whether a holder in this mode and one in `other` must not hold the same key at one time.
  @inlinable
  public func conflicts(with other: LockMode) -> Bool {
    rawValue &+ other.rawValue >= 2
  }
}
