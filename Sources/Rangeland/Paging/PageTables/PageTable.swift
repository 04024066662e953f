// SPDX-License-Identifier: Apache-2.0
//
// One table of 512 entries.
//
//   0     latch, stray mark, count of non-empty entries, level     guarded by the latch
//   16    first address, parent                                    immutable while published
//   112   512 entries of 8 bytes
//
// Level 0 is a leaf: it covers 2 MiB and its entries are `PageTableEntry`. Above it an entry is the
// address of the table below, or 0. A table is freed only when it is empty, so the entries of a fresh
// node are all zero and nobody has to clear 4 KiB: slab chunks start zeroed too.

import RangeLocks
import Synchronization

typealias PageTableRef = UnsafeMutablePointer<PageTable>

struct PageTable: ~Copyable {
  /// Guards changes of the entries (but for "cached by", accessed and dirty, which accessors set by
  /// compare-and-swap) and the two fields below. Order: parent, then child; both after a layout leaf.
  let latch: Latch
  /// 1 = unlinked and empty for good: whoever wants to install walks again. Written under the latch.
  let stray: Atomic<UInt32>
  /// Non-empty entries. Written under the latch; read without it as a hint.
  let count: Atomic<Int32>
  /// 0 = leaf ... 3 = root. Immutable while published.
  let level: Int32
  /// First address that the table covers. Immutable while published.
  let base: Address
  /// `nil` for the root. A parent lives while it has a child. Immutable while published.
  let parent: PageTableRef?

  static var entryCount: Int { 512 }
  static var headerBytes: Int { 112 }

  init(level: Int32, base: Address, parent: PageTableRef?) {
    latch = Latch()
    stray = Atomic(0)
    count = Atomic(0)
    self.level = level
    self.base = base
    self.parent = parent
  }

  /// log2 of the bytes that an entry covers.
  @inline(__always)
  static func entryShift(_ level: Int32) -> UInt64 { 12 + 9 * UInt64(level) }
}

extension UnsafeMutablePointer where Pointee == PageTable {
  /// Entry `i`. Sound: a node has `headerBytes` and 512 words, zeroed before first use.
  @inline(__always)
  func entry(_ i: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
    (UnsafeMutableRawPointer(self) + PageTable.headerBytes + i << 3)
      .assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// The leaf entry of `address`.
  @inline(__always)
  func entry(of address: Address) -> UnsafeMutablePointer<Atomic<UInt64>> {
    entry(Int(address >> 12) & 511)
  }

  /// The index of `address` in a table of level `level`.
  @inline(__always)
  static func index(_ address: Address, _ level: Int32) -> Int {
    Int(truncatingIfNeeded: address >> PageTable.entryShift(level)) & 511
  }

  /// The table under entry `i` of an inner table.
  @inline(__always)
  func child(_ i: Int) -> PageTableRef? {
    // Acquires the header that `PageTables.descend` publishes.
    PageTableRef(bitPattern: UInt(entry(i).pointee.load(ordering: .acquiring)))
  }

  /// Adds to the count of non-empty entries. Needs the latch.
  @inline(__always)
  func addCount(_ n: Int32) {
    // A plain addition: the latch excludes other writers.
    pointee.count.store(pointee.count.load(ordering: .relaxed) &+ n, ordering: .relaxed)
  }

  /// Entries in use, exact under the latch.
  @inline(__always)
  var inUse: Int32 { pointee.count.load(ordering: .relaxed) }
}
