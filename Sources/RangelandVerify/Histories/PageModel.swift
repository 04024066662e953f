// SPDX-License-Identifier: Apache-2.0
//
// The sequential model of a few pages: what each is, and what a call makes of it when it runs alone.
//
// Guarantee: independent of the code of the address space.
// Bounds: 15 pages, values of 8 bits at the start of a page.

import Rangeland

/// Up to 15 pages of a window.
struct PageModel: Hashable, Sendable, CustomStringConvertible {
  static var mostPages: Int { 15 }

  /// By page: 0 = not mapped, else `mapped`, rights, sharing and the value of its first word.
  private var pages = SIMD16<UInt16>()
  private(set) var count: Int

  private static var mapped: UInt16 { 1 << 15 }
  private static var shared: UInt16 { 1 << 14 }
  private static var value: UInt16 { 0xff }

  init(count: Int) {
    precondition(count <= Self.mostPages, "PageModel: too many pages")
    self.count = count
  }

  func isMapped(_ page: Int) -> Bool { pages[page] != 0 }

  func rights(_ page: Int) -> UInt64 { UInt64(pages[page] >> 8 & 7) }

  func isShared(_ page: Int) -> Bool { pages[page] & Self.shared != 0 }

  /// The first word; 0 for what is not mapped.
  func value(_ page: Int) -> UInt64 { UInt64(pages[page] & Self.value) }

  mutating func map(_ page: Int, rights: UInt64, shared: Bool, value: UInt64 = 0) {
    pages[page] =
      Self.mapped | UInt16(rights) << 8 | (shared ? Self.shared : 0) | UInt16(value) & Self.value
  }

  mutating func unmap(_ page: Int) { pages[page] = 0 }

  mutating func protect(_ page: Int, _ rights: UInt64) {
    pages[page] = pages[page] & ~0x700 | UInt16(rights) << 8
  }

  mutating func store(_ page: Int, _ value: UInt64) {
    pages[page] = pages[page] & ~Self.value | UInt16(value) & Self.value
  }

  /// `MADV_DONTNEED` of a page.
  mutating func drop(_ page: Int) { if !isShared(page) { store(page, 0) } }

  /// The first page of the highest gap of `length` pages.
  func highestGap(_ length: Int) -> Int? {
    var free = 0
    for page in stride(from: count - 1, through: 0, by: -1) {
      free = isMapped(page) ? 0 : free + 1
      if free == length { return page }
    }
    return nil
  }

  var description: String {
    (0..<count).map { page in
      if !isMapped(page) { return "-" }
      let rights = rights(page)
      return (rights & 1 != 0 ? "r" : "") + (rights & 2 != 0 ? "w" : "")
        + (rights & 4 != 0 ? "x" : "") + (isShared(page) ? "s" : "p") + "\(value(page))"
    }.joined(separator: " ")
  }
}
