// SPDX-License-Identifier: Apache-2.0
//
// The entries of a request for several ranges, and what waits for all of them, in blocks of the pool.
//
// Guarantee: none but that of a list; the owner's. While the group waits it is whose who has `waiter` from a stack.
// Mechanism: the first block is an entry that is in no shard, and in the place of its links the begin of the list; more
// blocks have nothing but the list.
// Cost: a block for three entries, and one for each 14 more.

/// A list of entries. `count` and `next` of each block are the first two words of its part of the list.
@usableFromInline
struct EntryGroup: @unchecked Sendable {
  // Sendable: an address; the list is its owner's.
  let raw: UnsafeMutableRawPointer

  private static let perFirstBlock = 3
  private static let perBlock = nodeStride / 8 - 2

  /// An empty list in a fresh block.
  init(block: UnsafeMutableRawPointer) {
    raw = block
    waiter.initialize(KeyRange(uncheckedFirst: 0, last: 0), .read, token: 0)
    waiter.pointer.pointee.shape = 1
    clear(block)
  }

  /// The group that an entry waits for.
  init(_ waiter: EntryRef) { raw = waiter.raw }

  /// What waits for all entries: it is in no shard, and has the state of all.
  var waiter: EntryRef { EntryRef(raw) }

  /// While it waits: the entries before this place have nobody in front.
  var place: Int {
    get { Int(truncatingIfNeeded: waiter.pointer.pointee.first) }
    nonmutating set { waiter.pointer.pointee.first = UInt64(truncatingIfNeeded: newValue) }
  }

  /// The part of the list that is in a block: from where links, and nothing else, are in an entry.
  private func part(of block: UnsafeMutableRawPointer) -> UnsafeMutableRawPointer {
    block == raw ? block + 24 : block
  }

  private func clear(_ block: UnsafeMutableRawPointer) {
    part(of: block).storeBytes(of: 0, as: Int.self)
    part(of: block).storeBytes(of: nil, toByteOffset: 8, as: UnsafeMutableRawPointer?.self)
    // The word of an entry's dependents is nil in every free block.
    block.storeBytes(of: 0, toByteOffset: 64, as: UInt.self)
  }

  /// Adds an entry; false when there is no memory.
  func append(_ entry: EntryRef, _ pool: NodePool) -> Bool {
    var block = raw
    while part(of: block).load(as: Int.self)
      == (block == raw ? Self.perFirstBlock : Self.perBlock)
    {
      if let next = part(of: block).load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self) {
        block = next
        continue
      }
      guard let next = pool.take() else { return false }
      clear(next)
      part(of: block).storeBytes(of: next, toByteOffset: 8, as: UnsafeMutableRawPointer?.self)
      block = next
    }
    let part = part(of: block)
    let count = part.load(as: Int.self)
    part.storeBytes(of: entry.raw, toByteOffset: 16 + count * 8, as: UnsafeMutableRawPointer.self)
    part.storeBytes(of: count + 1, as: Int.self)
    return true
  }

  /// Calls `body` for each entry in order.
  @inline(__always)
  func visitAll(_ body: (EntryRef) -> Void) {
    var next: UnsafeMutableRawPointer? = raw
    while let block = next {
      let part = part(of: block)
      for index in 0..<part.load(as: Int.self) {
        body(
          EntryRef(part.load(fromByteOffset: 16 + index * 8, as: UnsafeMutableRawPointer.self)))
      }
      next = part.load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self)
    }
  }

  /// The entry at a place, nil behind the last.
  subscript(_ place: Int) -> EntryRef? {
    var rest = place
    var next: UnsafeMutableRawPointer? = raw
    while let block = next {
      let part = part(of: block)
      let count = part.load(as: Int.self)
      if rest < count {
        return EntryRef(
          part.load(fromByteOffset: 16 + rest * 8, as: UnsafeMutableRawPointer.self))
      }
      rest -= count
      next = part.load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self)
    }
    return nil
  }

  /// Makes the group one that waits, for nobody yet, with one stamp. Nobody else can see its entries.
  func prepareToWait(stamp: UInt64, _ flags: UInt32) {
    place = 0
    waiter.pointer.pointee.state.store(Entry.grouped | flags | 1, ordering: .relaxed)
    visitAll { entry in
      entry.waiting.pointee = Waiting(next: raw, stamp: stamp)
      entry.pointer.pointee.state.store(Entry.stamped | Entry.grouped, ordering: .relaxed)
    }
  }

  /// Gives all blocks back. Needs that nothing names an entry, or what waits.
  func recycle(_ pool: NodePool) {
    visitAll { $0.recycle(pool) }
    giveBlocks(pool)
  }

  /// Gives the list's own blocks back.
  func giveBlocks(_ pool: NodePool) {
    var next: UnsafeMutableRawPointer? = raw
    while let block = next {
      next = part(of: block).load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self)
      // See `clear`; in the first block nobody has changed it.
      if block != raw { block.storeBytes(of: 0, toByteOffset: 64, as: UInt.self) }
      pool.give(block)
    }
  }
}
