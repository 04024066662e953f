// SPDX-License-Identifier: Apache-2.0
//
// The kinds of nodes that the slabs hold. A new node type adds a case and its size here.

/// A kind of slab node. The raw value indexes the per-thread caches.
enum SlabClass: Int, CaseIterable {
  case record
  case leafContent
  case leaf
  case indexNode
  case vmaCell
  case objectMapping
  case object
  case objectIndexNode
  case policyRange
  case pageTable

  /// Usable bytes of a node.
  var byteCount: Int {
    switch self {
    case .record: Self.recordLifeOffset + 8
    case .leafContent: 320
    case .leaf: 112
    case .indexNode: 832
    case .vmaCell: 48
    case .objectMapping: 112
    case .object: 112
    case .objectIndexNode: 528
    case .policyRange: 48
    case .pageTable: 4096 + 112
    }
  }

  /// Where the word stands that says whether a record is in the tree: `RecordRef.life`.
  static var recordLifeOffset: Int { 96 }

  /// Distance between nodes: the hidden header and padding, so that two nodes never share a
  /// 128-byte pair of cache lines unless they are small and rarely written.
  var stride: Int {
    let bytes = byteCount + SlabHeader.byteCount
    let unit = self == .vmaCell || self == .policyRange ? 64 : 128
    return (bytes + unit - 1) / unit * unit
  }

  /// Nodes moved between a thread's cache and the shared pool at a time.
  var batch: Int { self == .pageTable ? 8 : 32 }

  /// Free nodes that a thread keeps: more than come back from one epoch as a rule, so that a thread in steady
  /// state does not go to the shared pool.
  var cacheLimit: Int { self == .pageTable ? 64 : 512 }

  /// What a retired node counts towards an attempt to move the epoch on: page tables are large.
  var weight: Int { self == .pageTable ? 8 : 1 }
}

/// Sits before every node, so that readers may read all of a retired node while it is linked here.
struct SlabHeader {
  /// Next node of a free or limbo chain.
  var next: UnsafeMutableRawPointer?
  /// In the first node of a batch in the shared pool: the next batch.
  var nextBatch: UnsafeMutableRawPointer?

  static var byteCount: Int { 16 }

  /// The header of a node.
  @inline(__always)
  static func of(_ node: UnsafeMutableRawPointer) -> UnsafeMutablePointer<SlabHeader> {
    (node - byteCount).assumingMemoryBound(to: SlabHeader.self)
  }
}
