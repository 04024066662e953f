// SPDX-License-Identifier: Apache-2.0
//
// What an operation asks of the limited counters before it changes anything.

/// An amount for each limited counter; all of it is charged, or nothing.
struct Charge: Sendable, Equatable {
  /// Of `totalVM`, in pages.
  var pages: Int64 = 0
  /// Of `dataVM`, in pages.
  var dataPages: Int64 = 0
  /// Of `lockedVM`, in pages.
  var lockedPages: Int64 = 0
  /// Of `committed`, in pages.
  var committedPages: Int64 = 0
  /// Of `resident`, in pages.
  var residentPages: Int64 = 0
  /// Of `mapCount`.
  var areas: Int64 = 0
  /// Whether fewer areas than asked for are charged when the limit allows no more.
  var areasMayBeFewer = false
  /// How many more areas the limit has to allow than are charged.
  var spareAreas: Int64 = 0
  /// Whether it was charged; without any limit nothing is, and what changes is counted afterwards.
  var isCharged = false
  /// Whether a counter that nothing is charged to has to be within its limit all the same: Linux refuses to
  /// replace a mapping by one of the same size once RLIMIT_AS is below what is mapped.
  var checksPages = false
  var checksData = false
  /// The same of locked pages: locking again what is locked is refused beyond a limit that was lowered.
  var checksLocked = false

  /// How many VMAs more the operation may make, of `most` that it could need.
  @inline(__always)
  func areas(of most: Int) -> Int { isCharged ? Int(areas) : most }

  @inline(__always)
  subscript(counter: SpaceCounter) -> Int64 {
    switch counter {
    case .totalVM: pages
    case .dataVM: dataPages
    case .lockedVM: lockedPages
    case .committed: committedPages
    case .resident: residentPages
    case .mapCount: areas
    default: 0
    }
  }

  /// Whether the counter's limit is looked at.
  @inline(__always)
  func concerns(_ counter: SpaceCounter) -> Bool {
    switch counter {
    case .totalVM: pages != 0 || checksPages
    case .dataVM: dataPages != 0 || checksData
    case .lockedVM: lockedPages != 0 || checksLocked
    case .committed: committedPages != 0
    case .resident: residentPages != 0
    case .mapCount: areas != 0 || spareAreas != 0
    default: false
    }
  }
}
