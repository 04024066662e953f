// SPDX-License-Identifier: Apache-2.0
//
// One page-table entry.
//
//   63       52 51     44 43            12   11    10     9   8    7    6    5      4      3  2  1   0
//  | cached by |  zero   | frame number   | guard | lazy | tr | kind | zero | dirty | acc. | x  w  r | present |
//
// 0 is the empty entry. A present entry may have no rights at all (`PROT_NONE` keeps its pages). A guard is
// neither empty nor present. "Tracked" (tr): the page of a file; the right to write comes with a mark of the frame
// only. "Lazy": the page may be let go until somebody writes to it; never with "dirty".
// "Cached by" says which accessors may hold the translation: 0 nobody, 1...4094 that accessor, 4095
// several. It only grows while the entry stays, so a shootdown that obeys it never misses one.

/// Rights to a page.
struct PageRights: OptionSet, Sendable, Hashable {
  let rawValue: UInt8
  static let read = PageRights(rawValue: 1)
  static let write = PageRights(rawValue: 2)
  static let execute = PageRights(rawValue: 4)
}

/// How a resident page is counted (Linux `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SHMEMPAGES`).
enum PageKind: UInt8, CaseIterable, Sendable {
  case anonymous
  case file
  case sharedMemory
  /// Not counted: the shared page of zeros, special mappings.
  case uncounted
}

/// The value of an entry; 0 is empty.
struct PageTableEntry: Equatable, Sendable {
  var bits: UInt64

  static var empty: PageTableEntry { PageTableEntry(bits: 0) }

  static var presentBit: UInt64 { 1 }
  static var readBit: UInt64 { 1 << 1 }
  static var writeBit: UInt64 { 1 << 2 }
  static var rightsMask: UInt64 { 7 << 1 }
  static var accessedBit: UInt64 { 1 << 4 }
  static var dirtyBit: UInt64 { 1 << 5 }
  static var zeroBit: UInt64 { 1 << 6 }
  static var trackedBit: UInt64 { 1 << 9 }
  static var lazyBit: UInt64 { 1 << 10 }
  static var guardBit: UInt64 { 1 << 11 }
  static var cachedShift: UInt64 { 52 }
  static var cachedMask: UInt64 { 0xfff << 52 }
  /// "Cached by": more than one accessor, or one without an id of its own.
  static var cachedBySeveral: UInt64 { 0xfff }

  @inline(__always) init(bits: UInt64) { self.bits = bits }

  /// A page in a frame of its own or of the page cache. The entry takes over one reference.
  @inline(__always)
  init(frame: FrameNumber, rights: PageRights, kind: PageKind) {
    bits =
      Self.presentBit | UInt64(rights.rawValue & 7) << 1 | UInt64(kind.rawValue) << 7
      | UInt64(frame) << 12
  }

  /// The shared page of zeros: never writable, not counted.
  @inline(__always)
  static func zeroPage(rights: PageRights) -> PageTableEntry {
    var entry = PageTableEntry(
      frame: .sharedZero, rights: rights.subtracting(.write), kind: .uncounted)
    entry.bits |= zeroBit
    return entry
  }

  /// Refuses every access, as if nothing was mapped (Linux `PTE_MARKER_GUARD`). Maps nothing: to whoever takes
  /// it out it is like the page of zeros.
  static var guardPage: PageTableEntry {
    var entry = zeroPage(rights: [])
    entry.bits = entry.bits & ~presentBit | guardBit
    return entry
  }

  /// The page as released until it is written to (Linux `MADV_FREE`).
  var releasedLazily: PageTableEntry {
    PageTableEntry(bits: bits & ~(Self.accessedBit | Self.dirtyBit) | Self.lazyBit)
  }

  /// The page as a fork's child has it: not to be written to, and used by nobody yet.
  var forked: PageTableEntry {
    PageTableEntry(bits: bits & ~(Self.cachedMask | Self.writeBit | Self.accessedBit))
  }

  /// The page of shared memory as a fork's child has it: clean, and used by nobody yet.
  /// A write-back that has looked there before takes no right away, so there is none where it has to.
  var forkedShared: PageTableEntry {
    let lost = Self.cachedMask | Self.dirtyBit | Self.accessedBit
    return PageTableEntry(bits: bits & ~(isTracked ? lost | Self.writeBit : lost))
  }

  @inline(__always) var isEmpty: Bool { bits == 0 }
  @inline(__always) var isGuard: Bool { bits & Self.guardBit != 0 }
  /// The page may be let go: nobody has written to it since it was released.
  @inline(__always) var isLazilyReleased: Bool { bits & Self.lazyBit != 0 }
  @inline(__always) var isPresent: Bool { bits & Self.presentBit != 0 }
  @inline(__always) var isReadable: Bool { bits & Self.readBit != 0 }
  @inline(__always) var isWritable: Bool { bits & Self.writeBit != 0 }
  /// Whoever gets the right to write to it marks the frame as dirty first.
  @inline(__always) var isTracked: Bool { bits & Self.trackedBit != 0 }
  /// Somebody read or wrote the page through this entry.
  @inline(__always) var isAccessed: Bool { bits & Self.accessedBit != 0 }
  /// Somebody could write to the page through this entry.
  @inline(__always) var isDirty: Bool { bits & Self.dirtyBit != 0 }
  /// Maps the shared page of zeros.
  @inline(__always) var isZeroPage: Bool { bits & Self.zeroBit != 0 }
  @inline(__always) var frame: FrameNumber { UInt32(truncatingIfNeeded: bits >> 12) }
  @inline(__always) var rights: PageRights {
    PageRights(rawValue: UInt8(truncatingIfNeeded: bits >> 1) & 7)
  }
  @inline(__always) var kind: PageKind {
    // Two bits, four cases.
    PageKind(rawValue: UInt8(truncatingIfNeeded: bits >> 7) & 3).unsafelyUnwrapped
  }
  /// 0 nobody, 1...4094 an accessor, 4095 several.
  @inline(__always) var cachedBy: UInt64 { bits >> Self.cachedShift }

  /// The entry after accessor `id` (or 4095) has cached it for reading, or for writing too.
  @inline(__always)
  func cached(by id: UInt64, forWriting: Bool) -> PageTableEntry {
    let by = cachedBy
    let now = by == 0 || by == id ? id : Self.cachedBySeveral
    return PageTableEntry(
      bits: (bits & ~(forWriting ? Self.cachedMask | Self.lazyBit : Self.cachedMask))
        | now << Self.cachedShift | Self.accessedBit | (forWriting ? Self.dirtyBit : 0))
  }
}
