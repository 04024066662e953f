// SPDX-License-Identifier: Apache-2.0
//
// A window of this process's own address space, as the oracle for layouts: the same calls go to the
// kernel and to an `AddressSpace`, at the same addresses.
//
// Guarantee: nothing of the process but this object maps in the window, and no VMA in it merges with
//   one outside.
// Mechanism: windows lie terabytes below where the kernel places mappings by itself, and have a shared
//   page on either side. Mappings are read with PROCMAP_QUERY (Linux 6.11), one call for each.
// Source: Linux fs/proc/task_mmu.c `do_procmap_query`.

import Glibc
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

final class HostWindow {
  let start: Address
  let pages: UInt64
  private let maps: Int32
  /// Files of zeros, to be mapped privately, and their inodes.
  private var files: [(descriptor: Int32, inode: UInt64)] = []

  private static let next = Atomic<UInt64>(0x2000_0000_0000)

  /// Whether the kernel can be asked; older ones merge differently anyway.
  static let isSupported: Bool = {
    guard let window = try? HostWindow(pages: 1) else { return false }
    return window.query(0, coveringOnly: false) != nil
  }()

  init(pages: UInt64) throws {
    self.pages = pages
    let size = pages * page
    // Windows are far apart, so that they share no page table either.
    start = Self.next.add(1 << 32, ordering: .relaxed).oldValue + page
    maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
    try #require(maps >= 0)
    for fence in [start - page, start + size] {
      let flags = MAP_SHARED | MAP_ANONYMOUS | Self.fixedNoReplace
      #expect(Self.call(fence, page, [], flags) == .success(fence))
    }
  }

  deinit {
    munmap(UnsafeMutableRawPointer(bitPattern: UInt(start - page)), Int((pages + 2) * page))
    close(maps)
    for file in files { close(file.descriptor) }
  }

  /// Makes `count` files, known as 0, 1, ... to `mapFile` and to `query`.
  func makeFiles(_ count: Int) throws {
    for _ in 0..<count {
      var name = Array("/tmp/rangeland-test-XXXXXX".utf8CString)
      let descriptor = mkstemp(&name)
      unlink(name)
      let isLong = ftruncate(descriptor, 1 << 30)
      try #require(descriptor >= 0 && isLong == 0)
      var status = stat()
      let isKnown = fstat(descriptor, &status)
      try #require(isKnown == 0)
      files.append((descriptor, UInt64(status.st_ino)))
    }
  }

  /// Maps a file privately at a fixed address.
  func mapFile(
    _ file: Int, _ address: Address, _ length: UInt64, _ protection: Protection,
    pageOffset: UInt64
  ) -> Errno? {
    let result = mmap(
      Self.pointer(address), Int(bitPattern: UInt(length)), Int32(protection.rawValue),
      MAP_PRIVATE | MAP_FIXED, files[file].descriptor, Int(pageOffset * page))
    return result == MAP_FAILED ? Errno(rawValue: Glibc.errno) : nil
  }

  static let fixedNoReplace: Int32 = 0x100000

  static func call(
    _ address: Address, _ length: UInt64, _ protection: Protection, _ flags: Int32
  ) -> Result<Address, Errno> {
    let result = mmap(
      pointer(address), Int(bitPattern: UInt(length)),
      Int32(protection.rawValue), flags, -1, 0)
    if result == MAP_FAILED { return .failure(Errno(rawValue: Glibc.errno)) }
    return .success(Address(UInt(bitPattern: result)))
  }

  /// `mmap` of anonymous memory; a hint or fixed address as `MapAddress` says.
  func map(
    _ address: MapAddress, _ length: UInt64, _ protection: Protection, _ sharing: Sharing
  ) -> Result<Address, Errno> {
    var flags = MAP_ANONYMOUS | (sharing == .shared ? MAP_SHARED : MAP_PRIVATE)
    var at: Address = 0
    switch address {
    case .anywhere: break
    case .hint(let hint): at = hint
    case .fixed(let fixed): (at, flags) = (fixed, flags | MAP_FIXED)
    case .fixedNoReplace(let fixed): (at, flags) = (fixed, flags | Self.fixedNoReplace)
    }
    return Self.call(at, length, protection, flags)
  }

  func unmap(_ address: Address, _ length: UInt64) -> Errno? {
    status(munmap(Self.pointer(address), Int(bitPattern: UInt(length))))
  }

  func protect(_ address: Address, _ length: UInt64, _ protection: Protection) -> Errno? {
    status(
      mprotect(Self.pointer(address), Int(bitPattern: UInt(length)), Int32(protection.rawValue)))
  }

  func dontNeed(_ address: Address, _ length: UInt64) -> Errno? {
    status(madvise(Self.pointer(address), Int(bitPattern: UInt(length)), Int32(MADV_DONTNEED)))
  }

  private static func pointer(_ address: Address) -> UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: UInt(address))
  }

  private func status(_ result: Int32) -> Errno? {
    result == 0 ? nil : Errno(rawValue: Glibc.errno)
  }

  /// The first word of a page that may be read.
  func load(_ address: Address) -> UInt64 {
    UnsafePointer<UInt64>(bitPattern: UInt(address))!.pointee
  }

  /// Writes the first word of a page that may be written.
  func store(_ value: UInt64, _ address: Address) {
    UnsafeMutablePointer<UInt64>(bitPattern: UInt(address))!.pointee = value
  }

  /// The kernel's `find_vma`, or `vma_lookup` with `coveringOnly`; `nil` = none.
  func query(_ address: Address, coveringOnly: Bool) -> MappingInfo? {
    // struct procmap_query, 104 bytes.
    var words = [UInt64](repeating: 0, count: 13)
    words[0] = 104
    words[1] = coveringOnly ? 0 : 0x10
    words[2] = address
    let status = words.withUnsafeMutableBytes { ioctl(maps, 0xc068_6611, $0.baseAddress!) }
    if status != 0 { return nil }
    let flags = words[5]
    return MappingInfo(
      range: AddressRange(start: words[3], end: words[4]),
      protection: Protection(rawValue: UInt32(flags & 7)),
      sharing: flags & 8 != 0 ? .shared : .private, pageOffset: words[7] / page,
      file: files.firstIndex { $0.inode == words[8] }.map(UInt64.init))
  }

  /// What is mapped in the window. Private anonymous memory has no offset here: the kernel does not tell it.
  func mappings() -> [MappingInfo] {
    var result: [MappingInfo] = []
    var position = start
    let end = start + pages * page
    while position < end, let found = query(position, coveringOnly: false), found.range.start < end
    {
      result.append(found)
      position = found.range.end
    }
    return result
  }
}

extension AddressSpace {
  /// What is mapped in a window, in the form in which the kernel tells it.
  func mappings(in window: HostWindow) -> [MappingInfo] {
    mappings(
      in: AddressRange(start: window.start, end: window.start + window.pages * page)
    ).map {
      var info = $0
      if info.sharing == .private && info.file == nil { info.pageOffset = 0 }
      info.sharedObject = nil
      info.flags = []
      return info
    }
  }
}
