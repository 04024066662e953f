// SPDX-License-Identifier: Apache-2.0
//
// Addresses, pages and ranges of an address space.

import RangeLocks

/// A virtual address in bytes.
public typealias Address = UInt64

extension Address {
  /// Bytes in a page.
  public static var pageSize: UInt64 { 4096 }
  /// log2 of the page size.
  @inlinable static var pageShift: UInt64 { 12 }
  /// One past the last usable address of a space (Linux `TASK_SIZE` on x86-64 with 4-level tables).
  public static var spaceEnd: Address { 0x7fff_ffff_f000 }

  /// The number of the page that holds this address.
  @inlinable public var pageNumber: UInt64 { self >> 12 }
  /// The first address of the page that holds this address.
  @inlinable public var pageStart: Address { self & ~0xfff }
  /// Whether this address starts a page.
  @inlinable public var isPageAligned: Bool { self & 0xfff == 0 }
  /// This length or address rounded up to whole pages; `nil` when that overflows.
  @inlinable public var roundedUpToPage: UInt64? {
    let (sum, overflow) = addingReportingOverflow(0xfff)
    return overflow ? nil : sum & ~0xfff
  }
}

/// A half-open, non-empty range of addresses.
public struct AddressRange: Sendable, Hashable, CustomStringConvertible {
  /// The first address.
  public let start: Address
  /// One past the last address.
  public let end: Address

  /// The addresses from `start` up to, not including, `end`.
  ///
  /// - Precondition: `start < end`.
  @inlinable
  public init(start: Address, end: Address) {
    precondition(start < end, "AddressRange: a range has to end above its start")
    self.start = start
    self.end = end
  }

  /// The addresses of a Swift range.
  ///
  /// - Precondition: the range is not empty.
  @inlinable
  public init(_ range: Range<Address>) {
    self.init(start: range.lowerBound, end: range.upperBound)
  }

  /// The page that holds `address`.
  ///
  /// - Precondition: it is not the very last page of 64 bits, which has no end.
  @inlinable
  public init(pageOf address: Address) {
    precondition(
      address.pageStart <= UInt64.max - Address.pageSize, "AddressRange: the last page has no end")
    self.init(start: address.pageStart, end: address.pageStart + Address.pageSize)
  }

  /// Every address of a space.
  public static var wholeSpace: AddressRange { AddressRange(start: 0, end: Address.spaceEnd) }

  /// Bytes in the range.
  @inlinable public var length: UInt64 { end - start }
  /// Pages in the range, when it is page aligned.
  @inlinable public var lengthInPages: UInt64 { (end - start) >> 12 }

  /// Whether the two ranges share an address. Touching is not overlapping.
  @inlinable
  public func overlaps(_ other: AddressRange) -> Bool { start < other.end && other.start < end }

  /// Whether `address` lies in the range.
  @inlinable
  public func contains(_ address: Address) -> Bool { start <= address && address < end }

  /// Whether all of `other` lies in the range.
  @inlinable
  public func contains(_ other: AddressRange) -> Bool { start <= other.start && other.end <= end }

  public var description: String {
    "[0x\(String(start, radix: 16)), 0x\(String(end, radix: 16)))"
  }
}
