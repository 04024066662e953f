// SPDX-License-Identifier: Apache-2.0
//
// The keys that a request locks.
//
// Guarantee: a range is never empty and can contain every key, the last UInt64 included.
// Mechanism: both bounds are included, so no bound is one past the end of the number space.
// Cost: 16 bytes, no checks after `init`.
// Source: POSIX byte-range locks write "to the end" as length 0; we write it as `KeyRange(start...)`.

/// The keys `first...last`, both included. Never empty.
///
/// Touching ranges (`last + 1 == other.first`) share no key and never conflict.
public struct KeyRange: Sendable, Hashable {
  /// The lowest key.
  public let first: UInt64
  /// The highest key; may be `UInt64.max`.
  public let last: UInt64

  /// Every key: what a whole lock covers.
  public static let all = KeyRange(uncheckedFirst: 0, last: .max)

  @inlinable @inline(__always)
  init(uncheckedFirst first: UInt64, last: UInt64) {
    self.first = first
    self.last = last
  }

  /// The keys from `first` to `last`, both included.
  ///
  /// - Precondition: `first <= last`.
  @inlinable
  public init(first: UInt64, last: UInt64) {
    precondition(first <= last, "KeyRange: a range is not empty: first <= last")
    self.init(uncheckedFirst: first, last: last)
  }

  /// The keys of a half-open range.
  ///
  /// - Precondition: the range is not empty.
  @inlinable
  public init(_ range: Range<UInt64>) {
    precondition(!range.isEmpty, "KeyRange: a range is not empty: lowerBound < upperBound")
    self.init(uncheckedFirst: range.lowerBound, last: range.upperBound &- 1)
  }

  /// The keys of a closed range.
  @inlinable
  public init(_ range: ClosedRange<UInt64>) {
    self.init(uncheckedFirst: range.lowerBound, last: range.upperBound)
  }

  /// The keys from a lower bound to the last key there is.
  @inlinable
  public init(_ range: PartialRangeFrom<UInt64>) {
    self.init(uncheckedFirst: range.lowerBound, last: .max)
  }

  /// Whether the two ranges share a key.
  @inlinable
  public func overlaps(_ other: KeyRange) -> Bool {
    first <= other.last && other.first <= last
  }

  /// Whether every key of `other` is in this range.
  @inlinable
  public func contains(_ other: KeyRange) -> Bool {
    first <= other.first && other.last <= last
  }

  /// Whether `key` is in this range.
  @inlinable
  public func contains(_ key: UInt64) -> Bool {
    first <= key && key <= last
  }
}

extension KeyRange: CustomStringConvertible {
  /// The bounds in hexadecimal, `0x10...0x1f`.
  public var description: String {
    "0x\(String(first, radix: 16))...0x\(String(last, radix: 16))"
  }
}
