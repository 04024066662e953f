// SPDX-License-Identifier: Apache-2.0
//
// How many pages a recorded program had in memory at most, as far as its calls and faults tell: what a replay will hold.
//
// Mechanism: the events in the order in which they began; pages as bits, 512 in a block of 2 MiB.
// Cost: a look-up an event; a range costs the blocks in it, or all blocks there are, whichever are fewer.

import Rangeland

struct ResidentPages {
  private typealias Block = SIMD8<UInt64>
  private var blocks: [UInt64: Block] = [:]
  private(set) var count = 0
  private(set) var peak = 0

  private static let blockShift: UInt64 = 21

  /// The peak of a recording, in pages. Files' pages are counted in each mapping: it may be more than a replay holds.
  static func peak(_ recording: Recording) -> Int {
    var pages = ResidentPages()
    var programBreak: UInt64?
    var nextFault = recording.faults.startIndex
    for call in recording.calls {
      while nextFault < recording.faults.endIndex, recording.faults[nextFault].time <= call.enter {
        pages.insert(recording.faults[nextFault].address)
        nextFault += 1
      }
      switch call.effect(programBreak: &programBreak) {
      case .map(let area):
        pages.remove(area.start..<area.end)
        if call.kind == .mmap, call.arguments[3] & LinuxFlag.mapBringsIn != 0 {
          pages.insert(area.start..<area.end)
        }
      case .unmap(let range): pages.remove(range)
      case .move(let from, let to, _):
        // As many as there were, at the other place.
        let moved = pages.count(from)
        pages.remove(from)
        pages.remove(to)
        let length = min(UInt64(moved) << 12, to.upperBound - to.lowerBound)
        pages.insert(to.lowerBound..<to.lowerBound + length)
      case .advise(let range):
        if call.bringsIn {
          pages.insert(range)
        } else if call.kind == .madvise, [4, 9, 24].contains(call.arguments[2]) {
          pages.remove(range)
        }
      case .protect, .none: break
      }
    }
    for fault in recording.faults[nextFault...] { pages.insert(fault.address) }
    return pages.peak
  }

  /// The page of an address.
  mutating func insert(_ address: UInt64) {
    let page = address & ~4095
    insert(page..<page + 4096)
  }

  mutating func insert(_ range: Range<UInt64>) {
    // What brings in more is not made by a replay.
    guard range.upperBound - range.lowerBound <= 4 << 30 else { return }
    change(range, allBlocks: true) { $0 | $1 }
    peak = max(peak, count)
  }

  mutating func remove(_ range: Range<UInt64>) {
    change(range, allBlocks: false) { $0 & ~$1 }
  }

  /// Pages of a range that are there.
  func count(_ range: Range<UInt64>) -> Int {
    keys(range, allBlocks: false).reduce(0) { sum, key in
      sum + Self.bits((blocks[key] ?? Block()) & Self.mask(key, range))
    }
  }

  private mutating func change(
    _ range: Range<UInt64>, allBlocks: Bool, _ body: (Block, Block) -> Block
  ) {
    for key in keys(range, allBlocks: allBlocks) {
      let old = blocks[key] ?? Block()
      let new = body(old, Self.mask(key, range))
      count += Self.bits(new) - Self.bits(old)
      blocks[key] = new == Block() ? nil : new
    }
  }

  /// The blocks of a range: all of them, or those that there are.
  private func keys(_ range: Range<UInt64>, allBlocks: Bool) -> [UInt64] {
    if range.isEmpty { return [] }
    let keys = range.lowerBound >> Self.blockShift...(range.upperBound - 1) >> Self.blockShift
    if !allBlocks && keys.count > blocks.count { return blocks.keys.filter(keys.contains) }
    return Array(keys)
  }

  /// The pages of a block that lie in a range.
  private static func mask(_ key: UInt64, _ range: Range<UInt64>) -> Block {
    let base = key << blockShift
    let first = range.lowerBound > base ? (range.lowerBound - base) >> 12 : 0
    let end = min(512, (range.upperBound - base + 4095) >> 12)
    var mask = Block()
    for word in 0..<8 {
      let (low, high) = (UInt64(word) * 64, UInt64(word) * 64 + 64)
      let (from, to) = (max(first, low), min(end, high))
      if from < to { mask[word] = (.max >> (64 - (to - from))) << (from - low) }
    }
    return mask
  }

  private static func bits(_ block: Block) -> Int {
    (0..<8).reduce(0) { $0 + block[$1].nonzeroBitCount }
  }
}

extension Recording {
  /// The most pages of memory, in bytes, that the program had at one moment, as far as calls and faults tell.
  public var peakResidentBytes: UInt64 { UInt64(ResidentPages.peak(self)) << 12 }
}
