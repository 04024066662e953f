// SPDX-License-Identifier: Apache-2.0
//
// L-2 and L-3: listings beside writers, and how long a leaf's latch is held.

import RangelandTestSupport
import Testing

@testable import Rangeland

@Suite struct ListingRaceTests {
  /// 4 writers, each in stripes of its own of 16 pages; between the stripes lie pages that nobody changes.
  private struct Field {
    static let stripes: UInt64 = 24
    static let stripePages: UInt64 = 16

    static func start(_ stripe: UInt64) -> Address { base + stripe * (stripePages + 2) * page }
    /// A read-only page behind each stripe, then a hole.
    static func fence(_ stripe: UInt64) -> AddressRange {
      AddressRange(pageOf: start(stripe) + stripePages * page)
    }

    static func make(_ policy: LockPolicy) throws -> AddressSpace {
      let space = try makeSpace(policy)
      for stripe in 0..<stripes {
        _ = try space.map(
          length: stripePages * page, at: .fixed(start(stripe)), protection: [.read, .write])
        _ = try space.map(
          length: page, at: .fixed(fence(stripe).start), protection: .execute)
      }
      return space
    }

    /// One change: even writers map and unmap, odd ones only change rights, so that all stays mapped.
    static func change(_ space: AddressSpace, _ writer: Int, _ random: inout SeededRandom) throws {
      let stripe = random.below(stripes / 4) * 4 + UInt64(writer)
      let first = random.below(stripePages)
      let length = (1 + random.below(min(6, stripePages - first))) * page
      let at = start(stripe) + first * page
      if writer & 1 == 0 {
        if random.chance(50) {
          try space.unmap(at: at, length: length)
        } else {
          _ = try space.map(length: length, at: .fixed(at), protection: [.read, .write])
        }
      } else {
        try space.protect(at: at, length: length, random.chance(50) ? .read : [.read, .write])
      }
    }
  }

  /// What is wrong with a listing; `nil` = nothing.
  private static func fault(in listing: [MappingInfo]) -> String? {
    var end: Address = 0
    for mapping in listing {
      if mapping.range.start < end { return "\(mapping) begins below \(String(end, radix: 16))" }
      end = mapping.range.end
    }
    for stripe in 0..<Field.stripes {
      let fence = Field.fence(stripe)
      let found = listing.filter { $0.range.overlaps(fence) }
      if found.count != 1 || found[0].range != fence || found[0].protection != .execute {
        return "stripe \(stripe) ends with \(found)"
      }
      if stripe & 1 == 0 { continue }
      // Nobody unmaps here: whatever it is cut into, no page may be missing.
      let stripeRange = AddressRange(start: Field.start(stripe), end: fence.start)
      var position = stripeRange.start
      for mapping in listing where mapping.range.overlaps(stripeRange) {
        if mapping.range.start != position {
          return "stripe \(stripe): a gap at \(String(position, radix: 16)) that never was"
        }
        if mapping.pageOffset != mapping.range.start.pageNumber {
          return "\(mapping): the offset of another page"
        }
        position = mapping.range.end
      }
      if position != stripeRange.end { return "stripe \(stripe) ends early" }
    }
    return nil
  }

  @Test(arguments: LockPolicy.allCases)
  func `L-2 a listing beside four writers is sorted, disjoint and without false gaps`(
    _ policy: LockPolicy
  ) throws {
    let space = try Field.make(policy)
    let random = SeededRandom(for: "listings \(policy)")
    #if RANGELAND_TSAN
      let limit = 300
    #else
      let limit = policy == .ranged ? 30_000 : 8000
    #endif
    let running = SharedCounter()
    running.value = 4
    let lists = SharedCounter()
    withWatchdog(seconds: 120, "L-2 \(policy)") {
      let barrier = Barrier(5)
      let writers = (0..<4).map { writer in
        TestThread {
          var random = random.fork(writer)
          barrier.wait()
          do {
            for _ in 0..<limit { try Field.change(space, writer, &random) }
          } catch { fatalError("\(error)") }
          running.subtract()
        }
      }
      let walker = TestThread {
        barrier.wait()
        while running.value > 0 {
          let listing = space.mappings()
          if let what = Self.fault(in: listing) {
            fatalError("\(what)\n\(listing.map(\.description).joined(separator: "\n"))")
          }
          lists.value += 1
        }
      }
      for thread in writers + [walker] { thread.join() }
    }
    #expect(lists.value > 0)
    space.checkInvariants()
    #expect(Self.fault(in: space.mappings()) == nil)
  }

  #if RANGELAND_CHECKS
    @Test func `L-3 the times that leaves stay latched are counted`() throws {
      let before = LeafHoldTimes.count
      let space = try Field.make(.ranged)
      var random = SeededRandom(for: "leaf hold times")
      for i in 0..<2000 { try Field.change(space, i & 3, &random) }
      for i in 0..<100 as Range<UInt64> {
        _ = try space.map(length: page, protection: .read)
        try space.fault(at: Field.start(i % Field.stripes | 1), .read)
      }
      // No section calls the kernel, waits for an access or runs a callback: the assertions in SlabPool and
      // FrameDropList would have ended the process.
      #expect(LeafHoldTimes.count - before > 2000)
      print(
        "leaf latches: \(LeafHoldTimes.count) sections, cycles p50 < \(LeafHoldTimes.quantile(0.5)), "
          + "p99 < \(LeafHoldTimes.quantile(0.99)), max < \(LeafHoldTimes.quantile(1))")
    }
  #endif
}
