// SPDX-License-Identifier: Apache-2.0
//
// The entries of a request for several ranges, in blocks of the pool.
//
// Guarantee: none but that of a list; the owner's.
// Cost: a block for each 14 entries.

/// The first block of a list of entries; `count` and `next` of each block are its first two words.
@usableFromInline
struct EntryGroup: @unchecked Sendable {
  // Sendable: an address; the list is its owner's.
  let raw: UnsafeMutableRawPointer

  static let perBlock = nodeStride / 8 - 2

  /// An empty list in a fresh block.
  init(_ block: UnsafeMutableRawPointer) {
    raw = block
    Self.clear(block)
  }

  private static func clear(_ block: UnsafeMutableRawPointer) {
    block.storeBytes(of: 0, as: Int.self)
    block.storeBytes(of: nil, toByteOffset: 8, as: UnsafeMutableRawPointer?.self)
    // The word of an entry's dependents is nil in every free block.
    block.storeBytes(of: 0, toByteOffset: 64, as: UInt.self)
  }

  /// Adds an entry; false when there is no memory.
  func append(_ entry: EntryRef, _ pool: NodePool) -> Bool {
    var block = raw
    while block.load(as: Int.self) == Self.perBlock {
      if let next = block.load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self) {
        block = next
        continue
      }
      guard let next = pool.take() else { return false }
      Self.clear(next)
      block.storeBytes(of: next, toByteOffset: 8, as: UnsafeMutableRawPointer?.self)
      block = next
    }
    let count = block.load(as: Int.self)
    block.storeBytes(of: entry.raw, toByteOffset: 16 + count * 8, as: UnsafeMutableRawPointer.self)
    block.storeBytes(of: count + 1, as: Int.self)
    return true
  }

  /// Calls `body` for each entry in order.
  @inline(__always)
  func visitAll(_ body: (EntryRef) -> Void) {
    var next: UnsafeMutableRawPointer? = raw
    while let block = next {
      for index in 0..<block.load(as: Int.self) {
        body(
          EntryRef(block.load(fromByteOffset: 16 + index * 8, as: UnsafeMutableRawPointer.self)))
      }
      next = block.load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self)
    }
  }

  /// The entry at a place, nil behind the last.
  subscript(_ place: Int) -> EntryRef? {
    var rest = place
    var next: UnsafeMutableRawPointer? = raw
    while let block = next {
      let count = block.load(as: Int.self)
      if rest < count {
        return EntryRef(
          block.load(fromByteOffset: 16 + rest * 8, as: UnsafeMutableRawPointer.self))
      }
      rest -= count
      next = block.load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self)
    }
    return nil
  }

  /// Gives the list's own blocks back.
  func giveBlocks(_ pool: NodePool) {
    var next: UnsafeMutableRawPointer? = raw
    while let block = next {
      next = block.load(fromByteOffset: 8, as: UnsafeMutableRawPointer?.self)
      // See `clear`.
      block.storeBytes(of: 0, toByteOffset: 64, as: UInt.self)
      pool.give(block)
    }
  }
}
