// SPDX-License-Identifier: Apache-2.0
//
// The markers of a program, read and changed as one.

import RangeLocks

// Sendable: all access is under the latch.
final class MarkerNotes: @unchecked Sendable {
  /// Guards the markers, and changes of the heap's bounds beside them. Innermost, nothing is taken inside.
  private let latch = Latch()
  private var markers: ProgramMarkers

  init(_ markers: ProgramMarkers = ProgramMarkers()) { self.markers = markers }

  func withLock<Result>(_ body: (inout ProgramMarkers) -> Result) -> Result {
    latch.lock(.innermost)
    defer { latch.unlock(.innermost) }
    return body(&markers)
  }
}
