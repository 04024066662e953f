// SPDX-License-Identifier: Apache-2.0
//
// Random calls, weighted to where mistakes are: ends of mappings, holes, neighbours, and the borders that a
// call's arithmetic checks. What a call of a kind looks like says its definition; here is what they share.
//
// Guarantee: the calls depend on the seed and on what the subject answers, and stay inside the windows.

import Rangeland

struct ScriptGenerator {
  var random: VerifyRandom
  private let windows: [KernelProcess.AddressPair]
  /// Where the calls work, one in each window: the windows, or a thread's parts of them.
  private let areas: [KernelProcess.AddressPair]
  private let thread: Int
  private let isRestricted: Bool
  /// Small stretches where most calls meet, by window and first page of the area there.
  private let spots: [(window: VerifyWindow, page: UInt64, pages: UInt64)]
  /// The kinds that are made up, with the sums of their weights.
  private let ordinaryKinds: Weighted
  private let edgeKinds: Weighted

  private static var spotPages: UInt64 { 40 }

  /// - Parameters:
  ///   - kinds: the kinds of the calls. What they need and is not among them is every third call.
  ///   - areas: the parts of the windows that the thread has for itself; calls whose answers others decide are
  ///     not made then. `nil` = the windows.
  init(
    seed: UInt64, windows: [KernelProcess.AddressPair],
    kinds: [VerifyCall.Kind] = VerifyCall.Kind.ordinary, thread: Int = 0,
    areas: [KernelProcess.AddressPair]? = nil
  ) {
    random = VerifyRandom(seed: seed)
    self.windows = windows
    self.areas = areas ?? windows
    self.thread = thread
    isRestricted = areas != nil
    // In every script where they are all that is wanted.
    let hasRare = random.chance(18) || kinds.count < VerifyCall.Kind.ordinary.count
    let kinds = hasRare ? kinds : kinds.filter { !$0.definition.isForSomeScripts }
    var ordinary = Weighted(kinds) { $0.weight }
    let needed = Set(kinds.flatMap { $0.definition.needs }).subtracting(kinds)
    let share = max(1, ordinary.total / UInt64(2 * max(1, needed.count)))
    for kind in VerifyCall.Kind.allCases where needed.contains(kind) { ordinary.add(kind, share) }
    ordinaryKinds = ordinary
    edgeKinds = Weighted(kinds) { $0.edgeWeight }
    var spots: [(VerifyWindow, UInt64, UInt64)] = []
    // At a window's ends, over the border of a page table, and anywhere.
    for _ in 0..<2 {
      let window = random.pick([.high, .high, .high, .heap, .low] as [VerifyWindow])
      let area = self.areas[window.rawValue]
      let pages = (area.end - area.start) / 4096
      let spotPages = min(Self.spotPages, pages)
      let last = pages - spotPages
      let border = (512 - (area.start / 4096) % 512) % 512 &- spotPages / 2
      let first = random.pick([0, last, min(border, last), random.below(last)])
      spots.append((window, first, spotPages))
    }
    self.spots = spots
  }

  mutating func next(_ subject: SpaceFamily) -> VerifyCall {
    let members = subject.all
    // Some calls in one space, then some in another: a process that has not been asked for a while sleeps, and takes
    // longer to wake than to answer.
    if members.count > 1, random.chance(20) { subject.current = random.pick(members) }
    while true {
      let edge = random.chance(4) ? edgeKinds.pick(&random) : nil
      let definition = (edge ?? ordinaryKinds.pick(&random)!).definition
      // The same kind again when a call cannot be made, so that kinds keep their shares; but not for ever.
      for _ in 0..<20 {
        var call = edge == nil ? definition.ordinary(&self, subject) : definition.edge(&self)
        let absolute = windows.resolve(call)
        if windows.isHarmless(call), definition.isComparable(absolute, subject),
          !isRestricted || isOwn(absolute, subject)
        {
          call.thread = thread
          call.space = subject.current
          return call
        }
      }
    }
  }

  private func isOwn(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    let definition = call.kind.definition
    guard let reach = definition.reach(call) else { return false }
    return reach.allSatisfy(areas.contains) && definition.isDetermined(call, areas, subject)
  }

  // MARK: in the windows

  /// A page of a spot, as the window and the offset in it: often an end of a mapping there, or beside one.
  mutating func place(_ subject: any VerifySubject) -> (VerifyWindow, UInt64) {
    let spot = random.pick(spots)
    let bounds = areas[spot.window.rawValue]
    var at = bounds.start + (spot.page + random.below(spot.pages)) * 4096
    if random.chance(45), let found = subject.mappings(at, bounds.end).first {
      at = random.pick([found.start, found.end, found.start &- 4096, found.end - 4096])
    }
    at = min(max(at, bounds.start), bounds.end - 4096)
    return (spot.window, at - windows[spot.window.rawValue].start)
  }

  /// An offset in a window as an address.
  func absolute(_ window: VerifyWindow, _ offset: UInt64) -> UInt64 {
    windows[window.rawValue].start + offset
  }

  /// Bytes from an offset to the end of the area in its window.
  func room(_ window: VerifyWindow, _ offset: UInt64) -> UInt64 {
    areas[window.rawValue].end - windows[window.rawValue].start - offset
  }

  /// Bytes from `offset` on: a few pages, up to the end of the mapping there, or a part of a page less.
  mutating func length(
    _ subject: any VerifySubject, _ window: VerifyWindow, _ offset: UInt64
  ) -> UInt64 {
    let bounds = areas[window.rawValue]
    let at = windows[window.rawValue].start + offset
    var length = (1 + random.below(8)) * 4096
    if random.chance(35), let found = subject.mappings(at, bounds.end).first {
      let end = random.chance(70) || found.start <= at ? found.end : found.start
      length = end - at &+ random.pick([0, 0, 0, 4096, 0 &- 4096])
    }
    if random.chance(2) { length = random.pick([512, 513, 600]) * 4096 }
    if length == 0 { length = 4096 }
    length = min(length, bounds.end - at)
    if random.chance(12) { length -= random.below(4096) }
    return length
  }

  /// A piece of a mapping near a spot, often all of it or up to its end; `nil` when there is none.
  mutating func mapped(
    _ subject: any VerifySubject
  ) -> (window: VerifyWindow, offset: UInt64, length: UInt64)? {
    let (window, offset) = place(subject)
    let bounds = areas[window.rawValue]
    let base = windows[window.rawValue].start
    guard let found = subject.mappings(base + offset, bounds.end).first else { return nil }
    let start = max(found.start, bounds.start)
    let end = min(found.end, bounds.end)
    let pages = (end - start) / 4096
    let first = random.chance(50) ? 0 : random.below(pages)
    let count = random.chance(60) ? pages - first : 1 + random.below(pages - first)
    return (window, start + first * 4096 - base, count * 4096)
  }

  /// `PROT_*`.
  mutating func rights() -> UInt64 {
    random.pick([0, 1, 3, 3, 3, 3, 1, 5, 2, 7, 4])
  }

  // MARK: arithmetic edges

  /// An address and a length from the borders that calls check.
  mutating func edgeRange() -> (VerifyAddress, UInt64) {
    let max = UInt64.max
    let page: UInt64 = 4096
    let end = Address.spaceEnd
    let window = random.pick(VerifyWindow.allCases)
    let area = areas[window.rawValue]
    let first = area.start - windows[window.rawValue].start
    let size = area.end - area.start
    let addresses: [VerifyAddress] =
      [0, page, end - 2 * page, end - page, end - 1, end, end + 1].map { VerifyAddress(nil, $0) }
      + [end + page, 1 << 47, 1 << 63, max - page + 1, max - 1, max, max - 4095, max - 4096]
      .map { VerifyAddress(nil, $0) }
      + [0, 1, page - 1, size - page, size - 1, size, 0 &- page].map {
        VerifyAddress(window, first &+ $0)
      }
    let lengths: [UInt64] = [
      0, 1, page - 1, page, page + 1, 3 * page, end - page, end, end + 1, end + page, 1 << 47,
      1 << 63, max - page, max - page + 1, max - page + 2, max - 1, max,
    ]
    return (random.pick(addresses), random.pick(lengths))
  }
}

/// Kinds of calls, to be picked as often as their weights say.
private struct Weighted {
  private var kinds: [(kind: VerifyCall.Kind, upTo: UInt64)] = []
  private(set) var total: UInt64 = 0

  init(_ kinds: [VerifyCall.Kind], _ weight: (any CallDefinition) -> UInt64) {
    for kind in kinds { add(kind, weight(kind.definition)) }
  }

  mutating func add(_ kind: VerifyCall.Kind, _ weight: UInt64) {
    if weight == 0 { return }
    total += weight
    kinds.append((kind, total))
  }

  /// `nil` = there is none.
  func pick(_ random: inout VerifyRandom) -> VerifyCall.Kind? {
    if total == 0 { return nil }
    let number = random.below(total)
    return kinds.first { number < $0.upTo }?.kind
  }
}
