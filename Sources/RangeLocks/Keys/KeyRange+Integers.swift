// SPDX-License-Identifier: Apache-2.0
//
// Ranges of other integers, and of file offsets, as keys.
//
// Guarantee: order and overlap are kept: two ranges of one integer type share a key if and only if they overlap.
// Mechanism: signed numbers are moved up by half the number space, so that the least one is key 0.
// Source: POSIX fcntl(2) byte-range locks, for the length 0 that means "to the end".

extension KeyRange {
  /// The keys of a closed range of any integer type of at most 64 bits.
  ///
  /// One lock must be used with one type: the keys of `Int64(0)` and of `UInt64(0)` are not the same.
  ///
  /// - Precondition: the type has at most 64 bits.
  @inlinable
  public init<Bound: FixedWidthInteger>(of range: ClosedRange<Bound>) {
    self.init(
      uncheckedFirst: Self.key(of: range.lowerBound), last: Self.key(of: range.upperBound))
  }

  /// The keys of a half-open range of any integer type of at most 64 bits.
  ///
  /// - Precondition: the range is not empty, and the type has at most 64 bits.
  @inlinable
  public init<Bound: FixedWidthInteger>(of range: Range<Bound>) {
    precondition(!range.isEmpty, "KeyRange: a range is not empty: lowerBound < upperBound")
    self.init(of: range.lowerBound...(range.upperBound - 1))
  }

  /// The keys from a lower bound to the greatest number of its type.
  ///
  /// - Precondition: the type has at most 64 bits.
  @inlinable
  public init<Bound: FixedWidthInteger>(of range: PartialRangeFrom<Bound>) {
    self.init(of: range.lowerBound...Bound.max)
  }

  /// The key of a number: order is kept.
  @inlinable
  static func key<Bound: FixedWidthInteger>(of bound: Bound) -> UInt64 {
    precondition(Bound.bitWidth <= 64, "KeyRange: keys have 64 bits")
    if !Bound.isSigned { return UInt64(truncatingIfNeeded: bound) }
    return UInt64(bitPattern: Int64(truncatingIfNeeded: bound)) ^ (1 << 63)
  }

  /// Bytes of a file: `length` from `offset` on; a length of 0 means to the end, however the file grows, as for
  /// `fcntl(F_SETLK)`.
  ///
  /// - Returns: nil for a negative offset or length, and for a range that ends beyond the last offset
  ///   (`Int64.max`), where `fcntl` answers `EINVAL` or `EOVERFLOW`.
  @inlinable
  public init?(fileOffset offset: Int64, length: Int64) {
    guard offset >= 0, length >= 0 else { return nil }
    if length == 0 {
      self.init(of: offset...Int64.max)
      return
    }
    let (last, overflow) = offset.addingReportingOverflow(length - 1)
    if overflow { return nil }
    self.init(of: offset...last)
  }
}
