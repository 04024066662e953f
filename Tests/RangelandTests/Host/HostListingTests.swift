// SPDX-License-Identifier: Apache-2.0
//
// L-1: the listings against those of the kernel, character for character.

import Glibc
import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite(.enabled(if: HostWindow.isSupported, "PROCMAP_QUERY needs Linux 6.11"))
struct HostListingTests {
  /// The blocks of a file of this process whose first lines begin with an address in the window.
  private func host(_ file: String, _ window: HostWindow) throws -> [[String]] {
    let text = try readFile("/proc/self/\(file)")
    var blocks: [[String]] = []
    var isInside = false
    for line in text.split(separator: "\n").map(String.init) {
      if let address = Address(line.prefix { $0 != "-" }, radix: 16), line.contains("-") {
        isInside = address >= window.start && address < window.start + window.pages * page
        if isInside { blocks.append([]) }
      }
      if isInside { blocks[blocks.count - 1].append(line) }
    }
    return blocks
  }

  private func readFile(_ path: String) throws -> String {
    let descriptor = try FileDescriptor.open(path, .readOnly)
    defer { try? descriptor.close() }
    var bytes: [UInt8] = []
    let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 8)
    defer { chunk.deallocate() }
    while true {
      let count = try descriptor.read(into: chunk)
      if count == 0 { return String(decoding: bytes, as: UTF8.self) }
      bytes += chunk[..<count]
    }
  }

  /// The line without its inode and without the padding that depends on the inode's length.
  private func comparable(_ line: String) -> String {
    var words = line.split(separator: " ").map(String.init)
    if words.count > 4 { words[4] = words[4] == "0" ? "0" : "inode" }
    return words.joined(separator: " ")
  }

  /// The same mappings in both: rights of every kind, a hole, shared memory, pages read and written.
  private func prepare(_ window: HostWindow, _ space: AddressSpace) throws {
    let start = window.start
    for (first, count, rights, sharing) in [
      (0, 4, [.read, .write], .private), (4, 1, [], .private), (5, 2, .read, .private),
      (8, 4, [.read, .write], .shared), (12, 2, [.read, .execute], .private),
      (14, 1, .all, .private),
    ] as [(UInt64, UInt64, Protection, Sharing)] {
      let at = start + first * page
      #expect(window.map(.fixed(at), count * page, rights, sharing) == .success(at))
      _ = try space.map(length: count * page, at: .fixed(at), protection: rights, sharing: sharing)
    }
    for written in [0, 1, 8, 9, 14] as [UInt64] {
      window.store(7, start + written * page)
      try space.store(UInt64(7), at: start + written * page)
    }
    for read in [2, 5, 9, 13] as [UInt64] {
      let value = window.load(start + read * page)
      #expect(try space.load(UInt64.self, at: start + read * page) == value)
    }
    #expect(window.protect(start + 2 * page, page, .read) == nil)
    try space.protect(at: start + 2 * page, length: page, .read)
  }

  @Test func `maps is the kernel's, line for line`() throws {
    let window = try HostWindow(pages: 16)
    let space = try makeSpace(.ranged)
    try prepare(window, space)
    let theirs = try host("maps", window).map { $0[0] }
    let range = AddressRange(start: window.start, end: window.start + 16 * page)
    let ours = space.maps(in: range).split(separator: "\n").map(String.init)
    #expect(ours.count == 8)
    #expect(ours.map(comparable) == theirs.map(comparable))
    // Where no inode makes the difference: the same characters.
    for (a, b) in zip(ours, theirs) where a.hasSuffix(" 0 ") { #expect(a == b) }
    // Names begin in the column that the kernel gives them.
    let name = try #require(ours.first { $0.contains("/dev/zero") })
    #expect(name.utf8.firstIndex(of: UInt8(ascii: "/"))!.utf16Offset(in: name) == 73)
  }

  @Test func `smaps is the kernel's, number for number`() throws {
    let window = try HostWindow(pages: 16)
    let space = try makeSpace(.ranged)
    try prepare(window, space)
    let theirs = try host("smaps", window)
    let range = AddressRange(start: window.start, end: window.start + 16 * page)
    var ours: [[String]] = []
    for line in space.smaps(in: range).split(separator: "\n").map(String.init) {
      if line.first!.isHexDigit && line.contains("-") { ours.append([]) }
      ours[ours.count - 1].append(line)
    }
    #expect(ours.count == theirs.count)
    for (mine, their) in zip(ours, theirs) {
      #expect(comparable(mine[0]) == comparable(their[0]))
      for line in mine.dropFirst() {
        let name = line.prefix { $0 != ":" }
        // Aging and soft-dirty tracking are the kernel's own; huge pages depend on its settings.
        if ["VmFlags", "THPeligible"].contains(name) { continue }
        let same = their.first { $0.hasPrefix(name + ":") }
        #expect(line == same, "\(mine[0])")
      }
      let flags = their.first { $0.hasPrefix("VmFlags") }!.replacing(" sd", with: "")
      #expect(mine.last!.split(separator: " ") == flags.split(separator: " "))
    }
  }

  @Test func `the heap has its name, and released pages are told`() throws {
    let space = try makeSpace(.ranged)
    space.heapStart = base
    #expect(space.setBreak(to: base + 2 * page) == base + 2 * page)
    try mapPages(space, 8, 1)
    let lines = space.maps().split(separator: "\n")
    #expect(lines.map { $0.hasSuffix("[heap]") } == [true, false])
    try space.store(UInt8(1), at: base)
    try space.store(UInt8(1), at: base + page)
    try space.advise(.free, at: base, length: page)
    let usage = try #require(space.mappingUsage().first?.usage)
    #expect(usage.lazilyFreed == page)
    #expect(usage.privateClean == page && usage.privateDirty == page)
    #expect(space.smaps().contains("LazyFree:              4 kB"))
    try space.store(UInt8(2), at: base)
    #expect(space.mappingUsage().first?.usage.lazilyFreed == 0)
  }

  @Test func `status has the sizes of the usage`() throws {
    let window = try HostWindow(pages: 16)
    let space = try makeSpace(.ranged)
    try prepare(window, space)
    let lines = Dictionary(
      uniqueKeysWithValues: space.status().split(separator: "\n").map {
        (
          String($0.prefix { $0 != ":" }),
          Int($0.split(separator: " ").dropLast().last!.filter(\.isNumber))!
        )
      })
    #expect(lines["VmSize"] == 14 * 4)
    #expect(lines["RssAnon"] == 3 * 4)
    #expect(lines["RssShmem"] == 2 * 4)
    #expect(lines["VmRSS"] == 5 * 4)
    #expect(lines["VmHWM"]! >= 5 * 4)
    #expect(lines["VmData"] == (4 + 1 - 1) * 4)
    #expect(lines["VmExe"] == 2 * 4)
    #expect(lines["VmLck"] == 0 && lines["VmStk"] == 0)
    #expect(
      try readFile("/proc/self/status").split(separator: "\n").contains {
        $0.hasPrefix("VmData:\t")
      })
  }
}
