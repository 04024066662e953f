// SPDX-License-Identifier: Apache-2.0
//
// Random calls, weighted to where mistakes are: ends of mappings, holes, neighbours, and the borders that a
// call's arithmetic checks.
//
// Guarantee: the calls depend on the seed and on what the subject answers, and stay inside the windows.

import CKernelProtocol

struct ScriptGenerator {
  private var random: VerifyRandom
  private let windows: [KernelProcess.AddressPair]
  /// Small stretches where most calls meet, by window and first page.
  private let spots: [(window: VerifyWindow, page: UInt64)]

  private static var page: UInt64 { 4096 }
  private static var spotPages: UInt64 { 40 }
  /// One past the last address of a process.
  private static var end: UInt64 { 0x7fff_ffff_f000 }

  init(seed: UInt64, windows: [KernelProcess.AddressPair]) {
    random = VerifyRandom(seed: seed)
    self.windows = windows
    var spots: [(VerifyWindow, UInt64)] = []
    // At a window's ends, over the border of a page table, and anywhere.
    for _ in 0..<2 {
      let window = random.pick([.high, .high, .high, .heap, .low] as [VerifyWindow])
      let pages = (windows[window.rawValue].end - windows[window.rawValue].start) / Self.page
      let last = pages - Self.spotPages
      let border =
        (512 - (windows[window.rawValue].start / Self.page) % 512) % 512 &- Self.spotPages / 2
      spots.append((window, random.pick([0, last, min(border, last), random.below(last)])))
    }
    self.spots = spots
  }

  mutating func next(_ subject: any VerifySubject, _ kernel: KernelProcess) -> VerifyCall {
    while true {
      let call = random.chance(5) ? edgeCall() : ordinaryCall(subject)
      if kernel.isHarmless(call) { return call }
    }
  }

  // MARK: calls in the windows

  /// A page of a spot: often an end of a mapping there, or beside one.
  private mutating func place(_ subject: any VerifySubject) -> (VerifyWindow, UInt64) {
    let spot = random.pick(spots)
    let bounds = windows[spot.window.rawValue]
    var at = bounds.start + (spot.page + random.below(Self.spotPages)) * Self.page
    if random.chance(45), let found = subject.mappings(at, bounds.end).first {
      at = random.pick([found.start, found.end, found.start &- Self.page, found.end - Self.page])
    }
    at = min(max(at, bounds.start), bounds.end - Self.page)
    return (spot.window, at - bounds.start)
  }

  /// Bytes from `offset` on: a few pages, up to the end of the mapping there, or a part of a page less.
  private mutating func length(
    _ subject: any VerifySubject, _ window: VerifyWindow, _ offset: UInt64
  ) -> UInt64 {
    let bounds = windows[window.rawValue]
    let at = bounds.start + offset
    let room = bounds.end - at
    var length = (1 + random.below(8)) * Self.page
    if random.chance(35), let found = subject.mappings(at, bounds.end).first {
      let end = random.chance(70) || found.start <= at ? found.end : found.start
      length = end - at &+ random.pick([0, 0, 0, Self.page, 0 &- Self.page])
    }
    if random.chance(2) { length = random.pick([512, 513, 600]) * Self.page }
    if length == 0 { length = Self.page }
    length = min(length, room)
    if random.chance(12) { length -= random.below(Self.page) }
    return length
  }

  private mutating func rights() -> UInt64 {
    random.pick([0, 1, 3, 3, 3, 3, 1, 5, 2, 7, 4])
  }

  private mutating func ordinaryCall(_ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = place(subject)
    let length = length(subject, window, offset)
    let address = VerifyAddress(window, offset)
    let sharing = (random.chance(14) ? VerifyCall.shared : VerifyCall.private)
    let flags = sharing | VerifyCall.anonymous
    switch random.below(100) {
    case 0..<18:
      return VerifyCall(
        .mmap, address, length, protection: rights(), flags: flags | VerifyCall.fixed)
    case 18..<25:
      return VerifyCall(
        .mmap, address, length, protection: rights(),
        flags: flags | VerifyCall.fixedNoReplace | (random.chance(50) ? VerifyCall.fixed : 0))
    case 25..<32:
      let inside = random.chance(30) ? random.below(Self.page) : 0
      return VerifyCall(
        .mmap, VerifyAddress(window, offset + inside), length, protection: rights(), flags: flags)
    case 32..<38:
      let large: UInt64 = random.pick([512, 1024, 768, 513])
      return VerifyCall(
        .mmap, VerifyAddress(nil, 0), random.chance(20) ? large * Self.page : length,
        protection: rights(), flags: flags)
    case 38..<50:
      // Sometimes much, so that a script does not fill up.
      let room = windows[window.rawValue].end - windows[window.rawValue].start - offset
      return VerifyCall(.munmap, address, random.chance(4) ? room : length)
    case 50..<66: return VerifyCall(.mprotect, address, length, protection: rights())
    case 66..<72: return VerifyCall(.madvise, address, length, flags: VerifyCall.dontNeed)
    case 72..<89: return access(.store, window, offset)
    default: return access(.load, window, offset)
    }
  }

  private mutating func access(
    _ kind: VerifyCall.Kind, _ window: VerifyWindow, _ offset: UInt64
  ) -> VerifyCall {
    let size: UInt64 = random.pick([8, 8, 8, 4, 2, 1])
    let inside = random.pick([0, 8, Self.page - 8, random.below(Self.page / 8) * 8])
    // Sometimes across a page border.
    let odd: UInt64 = random.chance(8) ? 4092 - inside : 0
    return VerifyCall(
      kind, VerifyAddress(window, offset + inside + odd), size,
      value: kind == .store ? random.next() : 0)
  }

  // MARK: arithmetic edges

  private mutating func edgeCall() -> VerifyCall {
    let max = UInt64.max
    let page = Self.page
    let window = random.pick(VerifyWindow.allCases)
    let size = windows[window.rawValue].end - windows[window.rawValue].start
    let addresses: [VerifyAddress] =
      [0, page, Self.end - 2 * page, Self.end - page, Self.end - 1, Self.end, Self.end + 1]
      .map { VerifyAddress(nil, $0) }
      + [Self.end + page, 1 << 47, 1 << 63, max - page + 1, max - 1, max, max - 4095, max - 4096]
      .map { VerifyAddress(nil, $0) }
      + [0, 1, page - 1, size - page, size - 1, size, 0 &- page].map { VerifyAddress(window, $0) }
    let lengths: [UInt64] = [
      0, 1, page - 1, page, page + 1, 3 * page, Self.end - page, Self.end, Self.end + 1,
      Self.end + page, 1 << 47, 1 << 63, max - page, max - page + 1, max - page + 2, max - 1, max,
    ]
    let address = random.pick(addresses)
    let length = random.pick(lengths)
    let flags =
      (random.chance(20) ? VerifyCall.shared : VerifyCall.private) | VerifyCall.anonymous
      | random.pick([0, VerifyCall.fixed, VerifyCall.fixed, VerifyCall.fixedNoReplace])
    switch random.below(11) {
    case 0..<4: return VerifyCall(.mmap, address, length, protection: rights(), flags: flags)
    case 4..<6: return VerifyCall(.munmap, address, length)
    case 6..<8: return VerifyCall(.mprotect, address, length, protection: rights())
    case 8: return VerifyCall(.madvise, address, length, flags: VerifyCall.dontNeed)
    default:
      var at = address
      at.offset &= ~7
      return random.chance(50)
        ? VerifyCall(.load, at, 8) : VerifyCall(.store, at, 8, value: random.next())
    }
  }
}
