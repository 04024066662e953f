// SPDX-License-Identifier: Apache-2.0
//
// The directory of a range lock: levels of granules, a factor of 4 apart, each 128 shards.
//
// Guarantee: two requests that overlap find each other, whatever their sizes (docs/range-lock.md).
// Mechanism: a request lives at the finest level whose granule is at least half as large as it, hence in at most
// three granules; granules hash to shards. Requests of other levels look here by count and by facts.
// Cost: 4 KiB of memory idle, up to 16 KiB a level in use; address space for all levels is reserved at once.
// Source: the project's design, section 5.
//
// Lock order inside: coarser level before finer, in a level the lower shard address first. The pool's latch is
// a leaf.

import CRangeland
import Synchronization

/// The start of the mapping. All but `word` and `levelsInUse` is set before sharing and immutable.
///
/// In the directory's time nobody writes this line; in whole-lock mode only `word` changes.
@usableFromInline
struct DirectoryHeader: ~Copyable {
  /// Which mode the lock is in, and in whole-lock mode who holds: see `WholeWord`.
  @usableFromInline let word: Atomic<UInt64>
  /// A bit per level that ever had an entry: set before the first entry is added, never cleared.
  let levelsInUse: Atomic<UInt64>
  var granuleShift: Int
  /// The level of one granule with all keys.
  var topLevel: Int
  /// How many conflicting requests may pass one that waits; 0: none, first come, first served.
  var mostPasses: UInt32
  @usableFromInline var pool: NodePool
  #if RANGELOCKS_CHECKED
    /// The kind of lock in `LockOrderGraph`; 0: none.
    var lockClass: UInt8
  #endif
}

/// The handle of a directory.
@usableFromInline
struct Directory: @unchecked Sendable {
  // Sendable: an immutable address; what is there is atomic or latched.
  @usableFromInline let raw: UnsafeMutableRawPointer

  static let shardBits = 7
  static let shardCount = 1 << shardBits
  static let levelBits = 2
  /// What lies before the shards: header, changes of mode, `adoptedExtra`, observation, counters.
  static let fixedBlocks = 4 + CounterStripes.count

  /// Makes an empty directory; the lowest granule has `1 << granuleShift` keys.
  init(granuleShift: Int, entersWholeMode: Bool, mostPasses: UInt32, pool: NodePool) {
    let topLevel = (64 - granuleShift + Self.levelBits - 1) / Self.levelBits
    let bytes = Self.bytes(topLevel)
    guard let raw = rl_reserve(bytes) else {
      fatalError("RangeLock: no address space for \(bytes) bytes")
    }
    self.raw = raw
    header.pointee.granuleShift = granuleShift
    header.pointee.topLevel = topLevel
    header.pointee.mostPasses = mostPasses
    header.pointee.pool = pool
    modeSwitch.pointee.samplesNeeded = entersWholeMode ? ModeSwitch.fewestSamples : 0
    if !entersWholeMode { header.pointee.word.store(WholeWord.directory, ordering: .relaxed) }
  }

  /// Gives the memory back. Nobody may use the directory any more.
  func destroy() {
    observation.replaceHook(nil)
    _ = rl_release(raw, Self.bytes(header.pointee.topLevel))
  }

  static func bytes(_ topLevel: Int) -> Int {
    stripesOffset(topLevel) + Stripe.slotCount * Stripe.count * nodeStride
  }

  /// The stripes lie behind the shards.
  @inline(__always)
  static func stripesOffset(_ topLevel: Int) -> Int {
    (fixedBlocks &+ (topLevel &+ 1) &* shardCount) &* nodeStride
  }

  @inlinable @inline(__always)
  var header: UnsafeMutablePointer<DirectoryHeader> {
    raw.assumingMemoryBound(to: DirectoryHeader.self)
  }

  @inline(__always)
  var modeLatch: UnsafeMutablePointer<Latch> {
    (raw + nodeStride).assumingMemoryBound(to: Latch.self)
  }

  /// The second block of an entry that was taken over from whole-lock mode. One is enough: until it is released
  /// the mode is not entered again.
  @inline(__always)
  var adoptedExtra: UnsafeMutableRawPointer { raw + 2 * nodeStride }

  /// The last stamp that was given. Only requests that wait come here.
  @inline(__always)
  var stamps: UnsafeMutablePointer<Atomic<UInt64>> {
    (raw + nodeStride + 32).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// Needs the mode latch. Apart from it, so that no access to a part of one covers the other.
  @inline(__always)
  var modeSwitch: UnsafeMutablePointer<ModeSwitch> {
    (raw + nodeStride + 64).assumingMemoryBound(to: ModeSwitch.self)
  }

  @inline(__always)
  var observation: Observation { Observation(raw: raw + 3 * nodeStride) }

  @inline(__always)
  var counters: CounterStripes { CounterStripes(raw: raw + 4 * nodeStride) }

  @inlinable @inline(__always)
  var pool: NodePool { header.pointee.pool }
}

// MARK: - Geometry

extension Directory {
  /// The finest level with granules of at least half the range's size; the last for nearly all keys.
  @inline(__always)
  func level(of range: KeyRange) -> Int {
    let bits = 64 &- (range.last &- range.first).leadingZeroBitCount
    let over = bits &- header.pointee.granuleShift &- 1
    if over <= 0 { return 0 }
    return bits == 64 ? header.pointee.topLevel : (over &+ 1) &>> 1
  }

  /// Keys of a granule at `level`, as a shift between 1 and 64.
  @inline(__always)
  func shift(_ level: Int) -> Int {
    min(64, header.pointee.granuleShift &+ level &* Self.levelBits)
  }

  /// The granule of `key` where granules have `1 << shift` keys. A shift by 64 is not one instruction.
  @inline(__always)
  static func granule(_ key: UInt64, _ shift: Int) -> UInt64 {
    (key &>> UInt64(truncatingIfNeeded: shift &- 1)) &>> 1
  }

  /// The keys of a granule.
  static func keys(ofGranule granule: UInt64, _ shift: Int) -> KeyRange {
    let first = shift == 64 ? 0 : granule << UInt64(shift)
    return KeyRange(uncheckedFirst: first, last: first | (UInt64.max >> UInt64(64 - shift)))
  }

  /// Multiplicative hashing spreads neighbouring granules over all shards.
  @inline(__always)
  static func hash(_ granule: UInt64) -> UInt64 { granule &* 0x9E37_79B9_7F4A_7C15 }

  @inline(__always)
  static func shardIndex(_ granule: UInt64) -> Int {
    Int(truncatingIfNeeded: hash(granule) &>> UInt64(64 - shardBits))
  }

  @inline(__always)
  func shard(_ level: Int, index: Int) -> ShardRef {
    ShardRef(raw: raw + (Self.fixedBlocks &+ (level &<< Self.shardBits) &+ index) &* nodeStride)
  }

  /// The shards of the granules of `level` that contain the keys of `range`: at most three granules.
  @inline(__always)
  func homes(_ level: Int, _ range: KeyRange) -> Homes {
    let shift = shift(level)
    let first = Self.granule(range.first, shift)
    let last = Self.granule(range.last, shift)
    let shard = shard(level, index: Self.shardIndex(first))
    if first == last {
      return Homes(lower: shard, middle: nil, upper: nil, firstGranule: first, lastGranule: last)
    }
    return severalHomes(level, first, last)
  }

  @inline(never)
  private func severalHomes(_ level: Int, _ first: UInt64, _ last: UInt64) -> Homes {
    var lower = shard(level, index: Self.shardIndex(first))
    var upper = shard(level, index: Self.shardIndex(last))
    if lower.raw > upper.raw { swap(&lower, &upper) }
    var homes = Homes(
      lower: lower, middle: nil, upper: lower == upper ? nil : upper, firstGranule: first,
      lastGranule: last)
    if last &- first == 1 { return homes }
    let middle = shard(level, index: Self.shardIndex(first &+ 1))
    if middle == lower || middle == upper { return homes }
    if middle.raw < lower.raw {
      homes.lower = middle
      homes.middle = homes.upper == nil ? nil : lower
      homes.upper = homes.upper ?? lower
    } else if middle.raw > upper.raw {
      homes.middle = homes.upper
      homes.upper = middle
    } else {
      homes.middle = middle
    }
    return homes
  }
}

/// The shards of up to three neighbouring granules, each once, in latching order.
struct Homes {
  var lower: ShardRef
  /// Not nil: there are three, and `upper` is not nil.
  var middle: ShardRef?
  var upper: ShardRef?
  var firstGranule: UInt64
  var lastGranule: UInt64

  /// Latches the shards and raises their counts by `adding` (0 or 1).
  @inline(__always)
  func lock(adding: UInt32) {
    lower.lock(adding: adding)
    if let upper {
      if let middle { middle.lock(adding: adding) }
      upper.lock(adding: adding)
    }
  }

  @inline(__always)
  func unlock(removing: UInt32) {
    if let upper {
      upper.unlock(removing: removing)
      if let middle { middle.unlock(removing: removing) }
    }
    lower.unlock(removing: removing)
  }

  /// Unlatches; the closure says what goes from each shard's count.
  func unlock(removing: (ShardRef) -> UInt32) {
    if let upper { upper.unlock(removing: removing(upper)) }
    if let middle { middle.unlock(removing: removing(middle)) }
    lower.unlock(removing: removing(lower))
  }

  func contains(_ shard: ShardRef) -> Bool { shard == lower || shard == middle || shard == upper }

  /// Calls `body` for each shard, in latching order.
  @inline(__always)
  func visitAll(_ body: (ShardRef) -> Void) {
    body(lower)
    if let middle { body(middle) }
    if let upper { body(upper) }
  }

  /// Whether a shard has entries, or is about to. See `ShardRef.count` for the order.
  @inline(__always)
  var isOccupied: Bool {
    if lower.count != 0 { return true }
    guard let upper else { return false }
    return upper.count != 0 || middle.map { $0.count != 0 } ?? false
  }

  @inline(__always)
  var count: UInt8 { upper == nil ? 1 : middle == nil ? 2 : 3 }
}

// MARK: - Facts

extension Directory {
  /// The word that can say "no entry of a finer level overlaps this granule": its tag, `granule + 1`.
  ///
  /// Set only under the latch of the granule's shard; cleared by anybody, at any time. See "Facts" in
  /// docs/range-lock.md for what pairs with what; all accesses are sequentially consistent.
  @inline(__always)
  func fact(_ level: Int, _ granule: UInt64) -> UnsafeMutablePointer<Atomic<UInt64>> {
    let hash = Self.hash(granule)
    let index = Int(truncatingIfNeeded: hash &>> UInt64(64 - Self.shardBits))
    let slot = Int(truncatingIfNeeded: hash &>> UInt64(64 - Self.shardBits - 3)) & 7
    return (shard(level, index: index).raw + 64 + slot &* 8).assumingMemoryBound(
      to: Atomic<UInt64>.self)
  }

  @inline(__always)
  func isKnownEmptyBelow(_ level: Int, _ granule: UInt64) -> Bool {
    fact(level, granule).pointee.load(ordering: .sequentiallyConsistent) == granule &+ 1
  }

  /// Clears the facts that an entry of a finer level over `range` makes untrue.
  @inline(__always)
  func forgetEmptyBelow(_ level: Int, _ homes: Homes) {
    forget(level, homes.firstGranule)
    if homes.lastGranule == homes.firstGranule { return }
    for granule in (homes.firstGranule + 1)...homes.lastGranule { forget(level, granule) }
  }

  @inline(__always)
  func forget(_ level: Int, _ granule: UInt64) {
    let word = fact(level, granule)
    // A plain look first: in steady state nothing is set and the line stays shared.
    while word.pointee.load(ordering: .sequentiallyConsistent) == granule &+ 1 {
      _ = word.pointee.compareExchange(
        expected: granule &+ 1, desired: 0, ordering: .sequentiallyConsistent)
    }
  }
}
