// SPDX-License-Identifier: Apache-2.0
//
// Moving special mappings: P1 and C9.

import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

private final class Hooks: Sendable {
  let opened = Atomic<Int>(0)
  let closed = Atomic<Int>(0)
  let moves = Latched<[[AddressRange]]>([])

  func mapping(maySplit: Bool) -> SpecialMapping {
    SpecialMapping(
      name: "[test]", content: .bytes([UInt8](repeating: 5, count: 4 * 4096)), maySplit: maySplit,
      moved: { from, to in self.moves.withLock { $0.append([from, to]) } },
      opened: { self.opened.add(1, ordering: .relaxed) },
      closed: { self.closed.add(1, ordering: .relaxed) })
  }

  /// Pieces that there are, if one was inserted.
  var pieces: Int { 1 + opened.load(ordering: .relaxed) - closed.load(ordering: .relaxed) }
}

@Suite struct RemapSpecialTests {
  private func range(_ index: UInt64, _ count: UInt64) -> AddressRange {
    AddressRange(start: base + index * page, end: base + (index + count) * page)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a special mapping moves as a whole and its owner is told`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let hooks = Hooks()
    let start = try space.insert(
      hooks.mapping(maySplit: false), length: 4 * page, at: .fixed(base),
      protection: [.read, .write])
    try space.store(UInt8(9), at: start + page)
    #expect(throws: Errno.badAddress) {
      try space.remap(at: start, length: 4 * page, to: 5 * page)
    }
    #expect(throws: Errno.invalidArgument) {
      try space.remap(at: start, length: 4 * page, to: 4 * page, keepingSource: true)
    }
    for (first, count) in [(0, 3), (1, 3), (1, 2)] as [(UInt64, UInt64)] {
      #expect(throws: Errno.invalidArgument) {
        try space.remap(
          at: base + first * page, length: count * page, to: count * page,
          .fixed(base + 10 * page))
      }
    }
    #expect(throws: Errno.invalidArgument) {
      try space.remap(at: start, length: 4 * page, to: page, .inPlace)
    }
    #expect(throws: Errno.invalidArgument) { try space.remap(at: start, length: 0, to: page) }
    #expect(hooks.moves.withLock { $0 }.isEmpty && hooks.pieces == 1)
    // A part that may not be cut, and what was at the target is gone, as in Linux.
    try mapPages(space, 20, 3)
    #expect(throws: Errno.invalidArgument) {
      try space.remap(at: start, length: 3 * page, to: 3 * page, .fixed(base + 20 * page))
    }
    #expect(layout(space) == ["0..<4 rw-p"])
    _ = try space.remap(at: start, length: 4 * page, to: 4 * page, .fixed(base + 20 * page))
    #expect(hooks.moves.withLock { $0 } == [[range(0, 4), range(20, 4)]])
    #expect(hooks.pieces == 1)
    #expect(space.mapping(at: base + 20 * page)?.name == "[test]")
    #expect(try space.load(UInt8.self, at: base + 21 * page) == 9)
    #expect(try space.load(UInt8.self, at: base + 22 * page) == 5)
    #expect(refusal { _ = try space.load(UInt8.self, at: base) } == .notMapped)
    try space.unmap(at: base + 20 * page, length: 4 * page)
    #expect(hooks.pieces == 0)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `a part of one that may be cut moves with its offset`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let hooks = Hooks()
    _ = try space.insert(
      hooks.mapping(maySplit: true), length: 4 * page, at: .fixed(base), protection: .read)
    _ = try space.remap(
      at: base + page, length: 2 * page, to: 2 * page, .fixed(base + 9 * page))
    #expect(layout(space) == ["0..<1 r--p", "3..<4 r--p", "9..<11 r--p"])
    #expect(space.mapping(at: base + 9 * page)?.pageOffset == 1)
    #expect(hooks.moves.withLock { $0 } == [[range(1, 2), range(9, 2)]])
    #expect(hooks.pieces == 3)
    try space.unmap(at: base, length: 20 * page)
    #expect(hooks.pieces == 0)
  }
}
