// SPDX-License-Identifier: Apache-2.0
//
// C1: the addresses that the kernel chooses, one by one, for the same calls.
//
// Runs in a process of its own, where nobody else maps: the gaps of the process are filled with shared pages
// down to its lowest mapping, and the space has the same addresses taken. A runtime thread that starts in
// the middle would take a stack from the kernel, so a difference has to come back in every attempt.

import Glibc
import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite(.enabled(if: HostWindow.isSupported, "PROCMAP_QUERY needs Linux 6.11"))
struct HostPlacementTests {
  /// Where the kernel's own mappings begin, with the stack and all libraries above.
  private static var area: Address { 0x7000_0000_0000 }

  /// Fills the gaps above the lowest mapping of the mmap area; returns one past the addresses left free.
  private static func fillGaps(_ window: HostWindow) -> Address? {
    var top: Address?
    var position = area
    while let next = window.query(position, coveringOnly: false) {
      if top != nil, next.range.start > position {
        // A gap above `top`; what lies above the stack is not searched.
        let flags = MAP_SHARED | MAP_ANONYMOUS | HostWindow.fixedNoReplace
        _ = HostWindow.call(position, next.range.start - position, [], flags)
      }
      if top == nil {
        // A shared page below the lowest, so that nothing merges with it.
        let start = next.range.start - page
        let flags = MAP_SHARED | MAP_ANONYMOUS | HostWindow.fixedNoReplace
        guard HostWindow.call(start, page, [], flags) == .success(start) else { return nil }
        top = start
      }
      position = next.range.end
    }
    return top
  }

  /// The first difference of a random list of calls; `nil` = none.
  fileprivate static func difference(_ seed: UInt64) throws -> String? {
    let window = try HostWindow(pages: 1)
    let space = try makeSpace(.ranged)
    // All memory that the space takes from the kernel it takes now.
    for i in 0..<600 as Range<UInt64> { try mapPages(space, 2 * i, 1) }
    for pages in [1, 512, 1 << 20, 1 << 28] as [UInt64] {
      _ = try space.map(length: pages * page, protection: .read)
    }
    try space.unmap(at: 0, length: Address.spaceEnd)
    var live: [(Address, UInt64)] = []
    live.reserveCapacity(512)
    // Until no memory is taken from the kernel for it any more.
    var top: Address?
    repeat {
      top = fillGaps(window)
      guard let top else { return "no fence" }
      _ = try space.map(
        length: Address.spaceEnd - top, at: .fixed(top), protection: [], sharing: .shared)
    } while window.query(area, coveringOnly: false)?.range.start != top
    var random = SeededRandom(seed: seed)
    for i in 0..<400 {
      if live.count > 8, random.chance(45) {
        // All of one, or a part of it.
        let k = Int(random.below(UInt64(live.count)))
        let (at, length) = live[k]
        let pages = length / page
        let from = random.chance(50) ? 0 : random.below(pages)
        let count = random.chance(50) ? pages - from : 1 + random.below(pages - from)
        if window.unmap(at + from * page, count * page) != nil { return "unmap \(i)" }
        try space.unmap(at: at + from * page, length: count * page)
        live.remove(at: k)
        continue
      }
      let length: UInt64 =
        switch random.below(8) {
        case 0: 2 << 20
        case 1: 4 << 20
        case 2: 3 << 20
        case 3: (2 << 20) + page
        default: (1 + random.below(40)) * page
        }
      let protection: Protection = [[], .read, [.read, .write]][Int(random.below(3))]
      let sharing: Sharing = random.chance(20) ? .shared : .private
      var address = MapAddress.anywhere
      if let last = live.last, random.chance(20) {
        address = .hint(last.0 &- random.below(64) * page &+ random.below(2) * 7)
      }
      let host = window.map(address, length, protection, sharing)
      let ours = try space.map(
        length: length, at: address, protection: protection, sharing: sharing)
      guard case .success(let at) = host, at == ours else {
        return "call \(i), \(length / page) pages \(address): kernel \(host), "
          + String(ours, radix: 16)
      }
      live.append((at, length))
    }
    return nil
  }

  @Test func `C1 every address is the one that the kernel chooses`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardErrorContent]
    ) {
      var seen: [String] = []
      for attempt in 0..<4 as Range<UInt64> {
        guard let what = try HostPlacementTests.difference(placementSeed() &+ attempt) else {
          exit(0)
        }
        seen.append(what)
      }
      for what in seen { try FileDescriptor.standardError.writeAll("difference: \(what)\n".utf8) }
    }
    let errors = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(result != nil && !errors.contains("difference: "), "\(errors)")
  }
}

/// Another list of calls in every process.
private func placementSeed() -> UInt64 {
  let random = SeededRandom(for: "host placement")
  return random.seed
}
