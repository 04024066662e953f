// SPDX-License-Identifier: Apache-2.0
//
// P3: what a lookup finds was there during the lookup, with the threads' caches and without.

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct VMACacheRaceTests {
  @Test(arguments: [false, true], LockPolicy.allCases)
  func `P3 a lookup finds no mapping that was removed before it began`(
    _ isCached: Bool, _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy, vmaCache: isCached)
    #if RANGELAND_TSAN
      let rounds: UInt64 = 2_000
    #else
      let rounds: UInt64 = 20_000
    #endif
    let stale = withWatchdog("P3, \(policy)") {
      TaggedMapping(space).staleLookups(rounds: rounds, readers: 2)
    }
    #expect(stale == 0)
    if isCached {
      #expect(space.vmaCacheStatistics!.hits > 0)
    } else {
      #expect(space.vmaCacheStatistics == nil)
    }
    space.checkInvariants()
  }
}

/// One mapping at `base` that is removed and made again, over and over: its length tells the round.
final class TaggedMapping: Sendable {
  private let space: AddressSpace
  /// The last round whose mapping is there.
  private let published = Atomic<UInt64>(0)
  private static let tags: UInt64 = 251

  init(_ space: AddressSpace) { self.space = space }

  private static func length(_ round: UInt64) -> UInt64 { (round % tags + 1) * page }

  private func map(_ round: UInt64) {
    do throws(Errno) {
      _ = try space.map(
        length: Self.length(round), at: .fixed(base), protection: [.read, .write])
    } catch {
      Issue.record("map: \(error)")
    }
    published.store(round, ordering: .releasing)
  }

  private func unmap() {
    do throws(Errno) { try space.unmap(at: base, length: Self.tags * page) } catch {
      Issue.record("unmap: \(error)")
    }
  }

  /// Lookups of `readers` threads, beside a thread that makes `rounds` mappings, that found one whose successor was
  /// there before they began.
  func staleLookups(rounds: UInt64, readers: Int) -> Int {
    map(0)
    let stale = Atomic<Int>(0)
    runThreads(readers + 1) { [self] thread in
      if thread == 0 {
        for round in 1...rounds {
          unmap()
          map(round)
        }
        return
      }
      var seen: UInt64 = 0
      while seen < rounds {
        let first = published.load(ordering: .acquiring)
        if thread == 1 {
          // A fault goes the same way; between two mappings it finds none.
          try? space.fault(at: base, .write)
        }
        let found = space.mapping(at: base)
        seen = published.load(ordering: .acquiring)
        // After so long a lookup any tag would do.
        guard let found, seen - first < Self.tags - 2 else { continue }
        let isTrue = (first...seen + 1).contains { Self.length($0) == found.range.length }
        if !isTrue { stale.add(1, ordering: .relaxed) }
      }
    }
    return stale.load(ordering: .relaxed)
  }

  /// The same by one thread, which looks after every change.
  func staleLookups(rounds: UInt64) -> Int {
    map(0)
    var stale = 0
    for round in 1...rounds {
      if space.mapping(at: base)?.range.length != Self.length(round - 1) { stale += 1 }
      unmap()
      if space.mapping(at: base) != nil { stale += 1 }
      map(round)
    }
    return stale
  }
}
