// SPDX-License-Identifier: Apache-2.0
//
// P3: the VMA cache against the tree, memory of records that is used again, and a cache that does not check.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct VMACacheTests {
  @Test(arguments: LockPolicy.allCases)
  func `lookups agree with the list of mappings after every call`(_ policy: LockPolicy) throws {
    var random = SeededRandom(for: "VMA cache")
    let space = try makeSpace(policy, vmaCache: true)
    // On both sides of borders of cells and of the cache's slots.
    let at = base + (1 << 30) - 12 * page
    for _ in 0..<500 {
      let first = UInt64.random(in: 0..<20, using: &random)
      let length = UInt64.random(in: 1...6, using: &random) * page
      let start = at + first * page
      switch Int.random(in: 0..<8, using: &random) {
      case 0, 1:
        _ = try space.map(
          length: length, at: .fixed(start), protection: Bool.random(using: &random) ? .read : .all)
      case 2: try space.unmap(at: start, length: length)
      case 3: _ = errno { try space.protect(at: start, length: length, .read) }
      case 4: _ = errno { try space.protect(at: start, length: length, [.read, .write]) }
      case 5:
        let target = at + (40 + UInt64.random(in: 0..<20, using: &random)) * page
        _ = errno {
          _ = try space.remap(
            at: start, length: length, to: length, .fixed(target))
        }
      case 6: _ = errno { try space.advise(.dontFork, at: start, length: length) }
      // Publishes an identity, which replaces the record.
      default: _ = refusal { try space.fault(at: start, .write) }
      }
      // Twice: what the first one has found is in the cache for the second.
      for _ in 0..<2 {
        let all = space.mappings()
        for i in 0..<64 as Range<UInt64> {
          let address = at + i * page
          let expected = all.first { $0.range.contains(address) }
          #expect(space.mapping(at: address) == expected)
          #expect(
            space.mapping(atOrAfter: address) == all.first { $0.range.end > address })
          if i % 16 == 0 { _ = refusal { try space.fault(at: address, .read) } }
        }
      }
    }
    let statistics = try #require(space.vmaCacheStatistics)
    #expect(statistics.hits > 10_000)
    #expect(statistics.misses > 0)
    space.checkInvariants()
  }

  @Test func `memory of a record that another one has taken is not taken for it`() throws {
    // Records are reused three epochs later: many rounds with the same address and length.
    let space = try makeSpace(.ranged, vmaCache: true)
    let other = try AddressSpace(memory: space.memory, vmaCache: true)
    var seen: Set<UnsafeMutableRawPointer> = []
    var reused = 0
    for round in 0..<4_000 as Range<UInt64> {
      // Spaces of one memory share its records.
      let target = round % 3 == 0 ? other : space
      let rights: Protection = round % 2 == 0 ? .read : .all
      _ = try target.map(length: page, at: .fixed(base), protection: rights)
      #expect(target.mapping(at: base)?.protection == rights)
      #expect(target.mapping(at: base)?.protection == rights)
      let context = target.reclaimer.context()
      context.pin()
      let record = target.layout.pointee.find(base)!
      if !seen.insert(UnsafeMutableRawPointer(record)).inserted { reused += 1 }
      context.unpin()
      try target.unmap(at: base, length: page)
      #expect(target.mapping(at: base) == nil)
      #expect(space.mapping(at: base) == nil)
    }
    #expect(reused > 1_000)
    #expect(space.vmaCacheStatistics!.hits > 1_000)
  }

  #if RANGELAND_CHECKS
    @Test func `a cache that does not check is found out`() throws {
      let honest = try makeSpace(.ranged, vmaCache: true)
      #expect(TaggedMapping(honest).staleLookups(rounds: 100) == 0)
      let mistaken = try makeSpace(.ranged, vmaCache: true)
      mistaken.layout.pointee.mistakesCache.store(true, ordering: .relaxed)
      #expect(TaggedMapping(mistaken).staleLookups(rounds: 100) > 0)
      #if !RANGELAND_TSAN
        let racing = try makeSpace(.ranged, vmaCache: true)
        racing.layout.pointee.mistakesCache.store(true, ordering: .relaxed)
        let stale = withWatchdog("P3 with a mistake") {
          TaggedMapping(racing).staleLookups(rounds: 20_000, readers: 1)
        }
        #expect(stale > 0)
      #endif
    }
  #endif
}
