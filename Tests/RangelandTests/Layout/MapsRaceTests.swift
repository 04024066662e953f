// SPDX-License-Identifier: Apache-2.0
//
// L-1: the scenarios of the kernel's proc-maps-race test, on the text that `maps` shows.
//
// A writer goes back and forth between two layouts. Every line that a reader sees is a line of one of them, and
// no page is missing that is mapped in both.
// Source: the scenarios of Linux tools/testing/selftests/proc/proc-maps-race.c.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct MapsRaceTests {
  enum Scenario: String, CaseIterable, Sendable {
    /// A VMA is cut in three and becomes one again.
    case split
    /// A VMA loses its last page and gets it back.
    case shrink
    /// A VMA in the middle is replaced by another.
    case replace
    /// A VMA in the middle gets other rights.
    case patch

    /// Goes to the first or the second layout of three pages at `at`.
    func go(_ second: Bool, _ space: AddressSpace, _ at: Address) throws(Errno) {
      switch self {
      case .split: try space.protect(at: at + page, length: page, second ? .read : [.read, .write])
      case .shrink:
        if second {
          try space.unmap(at: at + 2 * page, length: page)
        } else {
          _ = try space.map(length: page, at: .fixed(at + 2 * page), protection: [.read, .write])
        }
      case .replace:
        _ = try space.map(
          length: page, at: .fixed(at + page), protection: second ? .execute : .read)
      case .patch: try space.protect(at: at + page, length: page, second ? .all : .read)
      }
    }

    /// Pages that are mapped in both layouts.
    var commonPages: UInt64 { self == .shrink ? 2 : 3 }
  }

  @Test(arguments: Scenario.allCases, LockPolicy.allCases)
  func `L-1 a line is old or new, and no gap is shown that never was`(
    _ scenario: Scenario, _ policy: LockPolicy
  ) throws {
    #if RANGELAND_TSAN
      let rounds = 100
    #else
      let rounds = 1000
    #endif
    // Inside a leaf of the tree, over the border of page tables, and over that of larger cells.
    for border in [5 * page, 1 << 21, 1 << 30, 1 << 39] as [UInt64] {
      let space = try makeSpace(policy)
      let at = base + border - page
      let range = AddressRange(start: at - page, end: at + 4 * page)
      for fence in [range.start, at + 3 * page] {
        _ = try space.map(
          length: page, at: .fixed(fence), protection: .read, sharing: .shared)
      }
      _ = try space.map(length: 3 * page, at: .fixed(at), protection: [.read, .write])
      var lines: Set<Substring> = []
      for second in [false, true, false] {
        try scenario.go(second, space, at)
        lines.formUnion(space.maps(in: range).split(separator: "\n"))
      }
      let isRunning = SharedCounter()
      isRunning.value = 1
      let looks = SharedCounter()
      withWatchdog(seconds: 120, "L-1 \(scenario) \(policy)") {
        let barrier = Barrier(2)
        let writer = TestThread {
          barrier.wait()
          do throws(Errno) {
            for round in 0..<rounds { try scenario.go(round & 1 == 0, space, at) }
          } catch { fatalError("\(scenario): \(error)") }
          isRunning.value = 0
        }
        let reader = TestThread { [lines] in
          barrier.wait()
          repeat {
            let text = space.maps(in: range)
            var position = range.start
            for line in text.split(separator: "\n") {
              // A part of an old VMA may be shown where its other part was shown as a new one already.
              let bounds = line.prefix { $0 != " " }.split(separator: "-").map {
                Address($0, radix: 16)!
              }
              let isKnown =
                lines.contains(line)
                || lines.contains { known in
                  known.dropFirst(known.prefix { $0 != " " }.count)
                    == line.dropFirst(line.prefix { $0 != " " }.count)
                }
              if !isKnown { fatalError("a line of neither layout: \(line)\n\(text)") }
              if bounds[0] < position { fatalError("lines overlap:\n\(text)") }
              if bounds[0] > position && position < at + scenario.commonPages * page {
                fatalError("a gap that never was, at \(String(position, radix: 16)):\n\(text)")
              }
              position = bounds[1]
            }
            if position != range.end { fatalError("the listing ends early:\n\(text)") }
            looks.value += 1
          } while isRunning.value == 1
        }
        for thread in [writer, reader] { thread.join() }
      }
      #expect(looks.value > 0)
      space.checkInvariants()
    }
  }
}
