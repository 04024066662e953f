// SPDX-License-Identifier: Apache-2.0
//
// The loops that show what the VMA cache is worth (P3): faults on pages that are present, so that what is measured is
// the lock, the lookup and a look at the page table.

import CRangeland
import Foundation
import Rangeland
import SystemPackage

/// A space with mappings of a page each, two pages apart, whose pages are present.
final class ManyAreas: Sendable {
  let space: AddressSpace
  let count: Int
  private static let start: Address = 0x1000_0000_0000
  private static let stride: UInt64 = 2 * Address.pageSize

  init(_ count: Int, cached: Bool) throws {
    space = try AddressSpace(vmaCache: cached)
    self.count = count
    for i in 0..<count {
      _ = try space.map(
        length: Address.pageSize, at: .fixedNoReplace(address(i)), protection: .read)
      try space.fault(at: address(i), .read)
    }
  }

  func address(_ i: Int) -> Address { Self.start + UInt64(i) * Self.stride }

  /// The cells of the loops `refault` and `scatter`.
  static func cells(_ threadCounts: [Int]) -> [BenchCell] {
    var cells: [BenchCell] = []
    for count in [64, 65_536] {
      for isCached in [false, true] {
        // Made when its cell comes, so that the other loops find no more in memory than they did.
        let areas = LazyAreas(count: count, isCached: isCached)
        let subject = "\(isCached ? "cache" : "tree"), \(count) mappings"
        for threads in threadCounts {
          for (name, run) in [("refault", 16), ("scatter", 1)] {
            cells.append(
              BenchCell(name: name, subject: subject, threads: threads) { n in
                let areas = try areas.made()
                return (0..<n).map { Refault(areas, run: run, seed: UInt64($0)) }
              })
          }
        }
      }
    }
    return cells
  }
}

/// Makes the mappings once.
private final class LazyAreas {
  private let count: Int
  private let isCached: Bool
  private var areas: ManyAreas?

  init(count: Int, isCached: Bool) { (self.count, self.isCached) = (count, isCached) }

  func made() throws -> ManyAreas {
    if let areas { return areas }
    let areas = try ManyAreas(count, cached: isCached)
    self.areas = areas
    return areas
  }
}

/// Faults `run` times on a page, then on that of another mapping, chosen at random.
final class Refault: BenchBody, @unchecked Sendable {
  private let areas: ManyAreas
  private let run: Int
  // Each thread of a run has its own instance: nothing is shared.
  private var state: UInt64

  init(_ areas: ManyAreas, run: Int, seed: UInt64) {
    self.areas = areas
    self.run = run
    state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
  }

  @inline(never)
  func runBatch() -> Int {
    let space = areas.space
    for _ in 0..<SpaceLoop.batch {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let address = areas.address(Int((state >> 33) % UInt64(areas.count)))
      for _ in 0..<run {
        do throws(AccessFault) { try space.fault(at: address, .read) } catch {
          fatalError("bench: \(error)")
        }
      }
    }
    return SpaceLoop.batch * run
  }
}
