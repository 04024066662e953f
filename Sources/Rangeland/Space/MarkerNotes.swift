// SPDX-License-Identifier: Apache-2.0
//
// The markers of a program, read and changed as one, the heap's bounds with them.
//
// Guarantee: a reader gets what was set together, and keeps no writer waiting.
// Mechanism: a number that is odd while a writer is at work. A reader that has seen a new word sees, because the words
//   are released and acquired, a new number too, and reads again.
// Cost: a load a word; a latch for writers.
// Source: Linux include/linux/seqlock.h. No stand-alone fences: ThreadSanitizer knows none.

import CRangeland
import RangeLocks
import Synchronization

// Sendable: an immutable pointer to atomics.
final class MarkerNotes: @unchecked Sendable {
  /// Guards the number, and all that is changed between two of its values. Innermost, nothing is taken inside.
  private let latch = Latch()
  private let number = Atomic<UInt64>(0)
  /// By `ProgramMarker`. The heap's two are the space's.
  private let words: UnsafeMutablePointer<Atomic<UInt64>>

  private static var count: Int { 12 }

  init(_ markers: ProgramMarkers = ProgramMarkers()) {
    words = .allocate(capacity: Self.count)
    for i in 0..<Self.count { (words + i).initialize(to: Atomic(0)) }
    store(markers)
  }

  deinit {
    words.deinitialize(count: Self.count)
    words.deallocate()
  }

  private func store(_ markers: ProgramMarkers) {
    for marker in ProgramMarker.allCases {
      words[Int(marker.rawValue)].store(markers[marker], ordering: .releasing)
    }
  }

  /// The markers of one instant.
  func read(_ heap: borrowing Heap) -> ProgramMarkers {
    while true {
      let before = number.load(ordering: .acquiring)
      if before & 1 == 0 {
        var markers = ProgramMarkers()
        for marker in ProgramMarker.allCases {
          markers[marker] = words[Int(marker.rawValue)].load(ordering: .acquiring)
        }
        let start = heap.start.load(ordering: .acquiring)
        markers.heapStart = start == .max ? 0 : start
        markers.programBreak = start == .max ? 0 : heap.programBreak.load(ordering: .acquiring)
        if number.load(ordering: .relaxed) == before { return markers }
      }
      rl_cpu_relax()
    }
  }

  /// Sets markers, and the heap's bounds.
  func write(_ markers: ProgramMarkers, _ heap: borrowing Heap) {
    change {
      store(markers)
      heap.move(to: markers.heapStart, markers.programBreak)
    }
  }

  /// Sets the heap's bounds only.
  func write(heap: borrowing Heap, start: UInt64) {
    change { heap.move(to: start, start) }
  }

  private func change(_ body: () -> Void) {
    latch.lock(.innermost)
    let before = number.load(ordering: .relaxed)
    // Nothing below comes before it: all of it is released.
    number.store(before &+ 1, ordering: .relaxed)
    body()
    number.store(before &+ 2, ordering: .releasing)
    latch.unlock(.innermost)
  }
}

extension Heap {
  /// A break is looked at only behind its start.
  fileprivate func move(to newStart: UInt64, _ newBreak: UInt64) {
    programBreak.store(newBreak, ordering: .releasing)
    start.store(newStart, ordering: .releasing)
  }
}
