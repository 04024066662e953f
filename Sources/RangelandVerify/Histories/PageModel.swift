// SPDX-License-Identifier: Apache-2.0
//
// The sequential model of a few pages: what each is, and what a call makes of it when it runs alone.
//
// Guarantee: independent of the code of the address space.
// Bounds: 15 pages, values of 8 bits at the start of a page; a file of 7 pages, and 7 pages of memory that stand behind
//   the window too.

import Rangeland

/// Up to 15 pages of a window, and the file and the shared memory that they may map.
struct PageModel: Hashable, Sendable, CustomStringConvertible {
  static var mostPages: Int { 15 }
  static var mostFilePages: Int { 7 }
  static var memoryPages: Int { 7 }

  /// By page: 0 = not mapped, else `mapped`, rights, sharing, the page of the file and one, or the value of its first word.
  /// With a page and without `shared`: one of the memory.
  private var pages = SIMD16<UInt16>()
  private(set) var count: Int
  /// By page of the file: the value of its first word. Behind the end all are 0.
  private var file = SIMD8<UInt8>()
  /// In pages.
  private(set) var fileSize = 0
  /// By page of the memory: the value of its first word.
  private var memory = SIMD8<UInt8>()

  private static var mapped: UInt16 { 1 << 15 }
  private static var shared: UInt16 { 1 << 14 }
  private static var filePage: UInt16 { 7 << 11 }
  private static var value: UInt16 { 0xff }

  init(count: Int) {
    precondition(count <= Self.mostPages, "PageModel: too many pages")
    self.count = count
  }

  func isMapped(_ page: Int) -> Bool { pages[page] != 0 }

  func rights(_ page: Int) -> UInt64 { UInt64(pages[page] >> 8 & 7) }

  func isShared(_ page: Int) -> Bool { pages[page] & (Self.shared | Self.filePage) != 0 }

  /// The page of the file that stands there; `nil` = other memory.
  func filePage(_ page: Int) -> Int? { pages[page] & Self.shared != 0 ? place(page) : nil }

  /// The page of the memory that stands there; `nil` = another page.
  func memoryPage(_ page: Int) -> Int? { pages[page] & Self.shared == 0 ? place(page) : nil }

  private func place(_ page: Int) -> Int? {
    let number = Int((pages[page] & Self.filePage) >> 11)
    return number == 0 ? nil : number - 1
  }

  /// Whether there is nothing behind it: the page of a file behind its end.
  func isBehindEnd(_ page: Int) -> Bool { filePage(page).map { $0 >= fileSize } ?? false }

  /// The first word; 0 for what is not mapped.
  func value(_ page: Int) -> UInt64 {
    if let place = filePage(page) { return UInt64(file[place]) }
    if let place = memoryPage(page) { return UInt64(memory[place]) }
    return UInt64(pages[page] & Self.value)
  }

  mutating func map(_ page: Int, rights: UInt64, shared: Bool, value: UInt64 = 0) {
    pages[page] =
      Self.mapped | UInt16(rights) << 8 | (shared ? Self.shared : 0) | UInt16(value) & Self.value
  }

  /// Maps a page of the file, shared.
  mutating func map(_ page: Int, rights: UInt64, filePage: Int) {
    pages[page] = Self.mapped | Self.shared | UInt16(rights) << 8 | UInt16(filePage + 1) << 11
  }

  /// Maps a page of the memory a second time.
  mutating func map(_ page: Int, memoryPage: Int) {
    pages[page] = Self.mapped | 3 << 8 | UInt16(memoryPage + 1) << 11
  }

  mutating func unmap(_ page: Int) { pages[page] = 0 }

  mutating func move(_ page: Int, to target: Int) {
    pages[target] = pages[page]
    pages[page] = 0
  }

  mutating func protect(_ page: Int, _ rights: UInt64) {
    pages[page] = pages[page] & ~0x700 | UInt16(rights) << 8
  }

  mutating func store(_ page: Int, _ value: UInt64) {
    if let place = filePage(page) {
      setFile(place, value)
    } else if let place = memoryPage(page) {
      setMemory(place, value)
    } else {
      pages[page] = pages[page] & ~Self.value | UInt16(value) & Self.value
    }
  }

  mutating func setFile(_ place: Int, _ value: UInt64) {
    file[place] = UInt8(truncatingIfNeeded: value)
  }

  func memory(_ place: Int) -> UInt64 { UInt64(memory[place]) }

  mutating func setMemory(_ place: Int, _ value: UInt64) {
    memory[place] = UInt8(truncatingIfNeeded: value)
  }

  /// As somebody sees it who cannot tell where else a page of the memory stands.
  var seen: PageModel {
    var model = self
    for page in 0..<count {
      guard memoryPage(page) != nil else { continue }
      model.map(page, rights: rights(page), shared: true, value: value(page))
    }
    return model
  }

  /// Gives the file another size.
  mutating func resizeFile(_ pages: Int) {
    for place in min(pages, Self.mostFilePages)..<8 { file[place] = 0 }
    fileSize = pages
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

  /// What a fork's child has, as bytes: of private pages what they hold, of shared ones what they are.
  var child: [UInt8] {
    let model = seen
    return (0..<count).flatMap { page -> [UInt8] in
      let isMemory = model.isShared(page) && model.filePage(page) == nil
      let bits = model.pages[page] & ~(isMemory ? Self.value : 0)
      return [UInt8(truncatingIfNeeded: bits), UInt8(truncatingIfNeeded: bits >> 8)]
    }
  }

  var description: String {
    let list = (0..<count).map { page in
      if !isMapped(page) { return "-" }
      let rights = rights(page)
      let kind =
        filePage(page).map { "f\($0)=" } ?? memoryPage(page).map { "m\($0)=" }
        ?? (isShared(page) ? "s" : "p")
      return (rights & 1 != 0 ? "r" : "") + (rights & 2 != 0 ? "w" : "")
        + (rights & 4 != 0 ? "x" : "") + kind + "\(value(page))"
    }.joined(separator: " ")
    return list + ", file " + (0..<fileSize).map { "\(file[$0])" }.joined(separator: " ")
      + ", memory " + (0..<Self.memoryPages).map { "\(memory[$0])" }.joined(separator: " ")
  }
}
