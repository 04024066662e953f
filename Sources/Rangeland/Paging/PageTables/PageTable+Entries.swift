// SPDX-License-Identifier: Apache-2.0
//
// Changing single entries of a latched leaf. "Needs the latch" = the caller got the leaf from
// `PageTables.latchLeaf` and has not unlocked it.
//
// Accessors change "cached by", accessed and dirty bits at any time, so every change here is an exchange
// or a compare-and-swap; they never turn an empty entry into a full one.

import Synchronization

extension UnsafeMutablePointer where Pointee == PageTable {
  /// The entry of `address`; only its "cached by", accessed and dirty bits can change under the latch.
  @inline(__always)
  func latchedEntry(_ address: Address) -> PageTableEntry {
    PageTableEntry(bits: entry(of: address).pointee.load(ordering: .acquiring))
  }

  /// Fills an empty entry: `false` = it is not empty, and nothing has changed. Needs the latch.
  @inline(__always)
  func install(_ new: PageTableEntry, at address: Address) -> Bool {
    assertLeaf(address)
    let slot = entry(of: address)
    // Nobody but a holder of the latch fills an empty entry, so a load and a store are enough.
    if slot.pointee.load(ordering: .relaxed) != 0 { return false }
    // Releases the page's contents and its owner. Partner: `AccessorState` fill, `lookup`.
    slot.pointee.store(new.bits, ordering: .releasing)
    addCount(1)
    return true
  }

  /// Empties an entry and returns what it was. Whoever cached it is told by the caller's drop list.
  /// Needs the latch.
  @inline(__always)
  func extract(_ address: Address) -> PageTableEntry {
    assertLeaf(address)
    // Sequentially consistent: the shootdown that follows relies on it. Partner: the fill's load.
    let old = entry(of: address).pointee.exchange(0, ordering: .sequentiallyConsistent)
    if old != 0 { addCount(-1) }
    return PageTableEntry(bits: old)
  }

  /// Adds rights to a present entry. Nobody has to be told: a cached translation without the right
  /// misses and comes here again. Needs the latch.
  @inline(__always)
  func grant(_ rights: PageRights, at address: Address) {
    assertLeaf(address)
    let slot = entry(of: address)
    assert(
      !rights.contains(.write) || !latchedEntry(address).isZeroPage,
      "the page of zeros is never writable")
    if slot.pointee.load(ordering: .relaxed) & PageTableEntry.presentBit != 0 {
      // Releases nothing new; the or keeps what accessors add at the same time.
      slot.pointee.bitwiseOr(UInt64(rights.rawValue & 7) << 1, ordering: .relaxed)
    }
  }

  /// Takes all rights but `allowed` from a present entry; returns what it was, or `nil` when it lost
  /// nothing. Needs the latch; the caller shoots down.
  @inline(__always)
  func restrict(to allowed: PageRights, at address: Address) -> PageTableEntry? {
    let slot = entry(of: address)
    let lost = PageTableEntry.rightsMask & ~(UInt64(allowed.rawValue & 7) << 1)
    if slot.pointee.load(ordering: .relaxed) & lost == 0 { return nil }
    // Sequentially consistent: as in `extract`.
    return PageTableEntry(
      bits: slot.pointee.bitwiseAnd(~lost, ordering: .sequentiallyConsistent).oldValue)
  }

  /// Ends what `PageTables.latchLeaf` began.
  @inline(__always)
  func unlockLeaf() { pointee.latch.unlock(.pageTable) }

  @inline(__always)
  private func assertLeaf(_ address: Address) {
    #if RANGELAND_CHECKS
      precondition(
        pointee.level == 0 && pointee.base == (address >> 21) << 21, "PageTable: not the leaf")
      precondition(pointee.latch.isLocked, "PageTable: the leaf is not latched")
      precondition(pointee.stray.load(ordering: .relaxed) == 0, "PageTable: the leaf is stray")
    #endif
  }
}
