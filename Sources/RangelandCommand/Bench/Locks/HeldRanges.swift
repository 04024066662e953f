// SPDX-License-Identifier: Apache-2.0
//
// One more narrow acquire beside many ranges that are held.

import RangeLocks

/// Holds many disjoint ranges as long as it lives.
final class HeldRanges: @unchecked Sendable {
  // The holds are made once and released by the deinitialiser.
  let lock = RangeLock(configuration: .init(usesWholeLockMode: false))
  private let holds: UnsafeMutablePointer<RangeHold>
  private let count: Int

  /// 4 KiB every 64 KiB, so that they lie as close as mappings do.
  static let distance: UInt64 = 64 << 10
  static let length: UInt64 = 4096

  init(count: Int) {
    self.count = count
    holds = .allocate(capacity: max(1, count))
    for i in 0..<count {
      let start = Self.start + UInt64(i) * Self.distance
      (holds + i).initialize(
        to: lock.lock(over: KeyRange(start..<(start + Self.length)), .write))
    }
  }

  deinit {
    holds.deinitialize(count: count)
    holds.deallocate()
  }

  static let start: UInt64 = 1 << 40

  /// A free range at a place that does not depend on how many are held: beside the first.
  static let fixedPlace = KeyRange((start + 8192)..<(start + 12288))

  /// Free ranges all over what `count` ranges span.
  static func randomPlaces(count: Int, using random: inout SplitMix) -> [KeyRange] {
    (0..<4096).map { _ in
      let gap = random.next() % UInt64(max(1, count))
      let first = start + gap * distance + 8192
      return KeyRange(first..<(first + length))
    }
  }
}

/// Acquires and releases free ranges of a lock that holds many.
final class HeldLoop: BenchBody, @unchecked Sendable {
  // Each thread of a run has its own instance.
  private let held: HeldRanges
  private let places: [KeyRange]
  private var next = 0

  init(_ held: HeldRanges, _ places: [KeyRange]) {
    self.held = held
    self.places = places
  }

  @inline(never)
  func runBatch() -> Int {
    for _ in 0..<256 {
      let place = places[next]
      next = next + 1 == places.count ? 0 : next + 1
      let hold = held.lock.lock(over: place, .write)
      hold.release()
    }
    return 256
  }
}

/// SplitMix64, seeded: the same ranges in every run.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64
  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
    return word ^ word >> 31
  }
}
