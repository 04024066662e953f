// SPDX-License-Identifier: Apache-2.0
//
// M5: a reader never sees the beginning of one program and the end of another.

import CRangeland
import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct MarkerRaceTests {
  /// Every marker tells which of the two it belongs to.
  private static func markers(_ second: Bool) -> ProgramMarkers {
    var markers = ProgramMarkers()
    for marker in ProgramMarker.allCases {
      markers[marker] = (second ? 0x2000_0000 : 0x1000_0000) + UInt64(marker.rawValue) * page
    }
    // A stack has no order among the others; a heap that is empty stays.
    markers.programBreak = markers.heapStart
    return markers
  }

  @Test(arguments: LockPolicy.allCases)
  func `M5 markers are read as they were set, all together`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let both = [Self.markers(false), Self.markers(true)]
    try space.setMarkers(both[0])
    #if RANGELAND_TSAN
      let rounds = 50
    #else
      let rounds = 300
    #endif
    let isDone = Atomic<Bool>(false)
    let torn = Atomic<Int>(0)
    withWatchdog("M5, \(policy)") {
      runThreads(4) { thread in
        switch thread {
        case 0:
          for round in 1...rounds {
            do throws(Errno) { try space.setMarkers(both[round % 2]) } catch {
              Issue.record("setMarkers: \(error)")
            }
          }
          isDone.store(true, ordering: .releasing)
        case 1:
          // A break that goes to the start of the lower heap: where it is, or below the heap, so that nothing is mapped.
          while !isDone.load(ordering: .acquiring) {
            _ = space.setBreak(to: both[0].heapStart)
            rl_yield()
          }
        default:
          while !isDone.load(ordering: .acquiring) {
            let seen = space.markers
            if seen != both[0] && seen != both[1] { torn.add(1, ordering: .relaxed) }
          }
        }
      }
    }
    #expect(torn.load(ordering: .relaxed) == 0)
    #expect(space.mappings().isEmpty)
  }
}
