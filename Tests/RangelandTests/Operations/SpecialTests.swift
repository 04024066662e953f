// SPDX-License-Identifier: Apache-2.0
//
// P1, C9, C12, V1: mappings that the owner of a space supplies.

import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

/// Counts calls of hooks.
private final class Calls: Sendable {
  let opened = Atomic<Int>(0)
  let closed = Atomic<Int>(0)
  let filled = Atomic<Int>(0)

  func mapping(maySplit: Bool = true) -> SpecialMapping {
    SpecialMapping(
      name: "[test]",
      content: .fault { page, bytes in
        self.filled.add(1, ordering: .relaxed)
        if page >= 8 { return false }
        bytes.storeBytes(of: UInt64(page + 1), as: UInt64.self)
        return true
      }, maySplit: maySplit,
      opened: { self.opened.add(1, ordering: .relaxed) },
      closed: { self.closed.add(1, ordering: .relaxed) })
  }

  var counts: [Int] { [opened.load(ordering: .relaxed), closed.load(ordering: .relaxed)] }
}

@Suite struct SpecialTests {
  private let at: Address = 0x10_0000

  @Test(
    "C9: inserting over anything is ENOMEM, and a special mapping never merges",
    arguments: LockPolicy.allCases)
  func insertion(_ policy: LockPolicy) throws {
    let space = try AddressSpace(policy: policy)
    let special = SpecialMapping(name: "[pages]", content: .bytes([1, 2, 3]))
    let first = try space.insert(special, length: page, at: .fixed(at), protection: .read)
    #expect(first == at)
    #expect(throws: Errno.noMemory) {
      try space.insert(special, length: page, at: .fixed(at), protection: .read)
    }
    #expect(throws: Errno.noMemory) {
      try space.insert(special, length: 2 * page, at: .fixed(at - page), protection: .read)
    }
    #expect(space.mappings().count == 1)
    #expect(
      try space.insert(special, length: page, at: .fixed(at + page), protection: .read) == at + page
    )
    _ = try space.map(length: page, at: .fixed(at + 2 * page), protection: .read)
    #expect(space.mappings().map(\.name) == ["[pages]", "[pages]", nil])
    #expect(throws: Errno.invalidArgument) {
      try space.insert(special, length: 0, protection: .read)
    }
    #expect(throws: Errno.invalidArgument) {
      try space.insert(special, length: page, at: .fixed(at + 1), protection: .read)
    }
    // Placed like any other mapping.
    let placed = try space.insert(special, length: page, protection: .read)
    #expect(space.mapping(at: placed)?.name == "[pages]")
    #expect(space.mappings().count == 4)
    space.checkInvariants()
  }

  @Test("P1: content, bus errors behind it, copy-on-write, rights", arguments: LockPolicy.allCases)
  func content(_ policy: LockPolicy) throws {
    let space = try AddressSpace(policy: policy)
    var bytes = [UInt8](repeating: 0, count: 4100)
    bytes[0] = 7
    bytes[4099] = 9
    let vdso = SpecialMapping(name: "[vdso]", content: .bytes(bytes))
    _ = try space.insert(vdso, length: 3 * page, at: .fixed(at), protection: [.read, .execute])
    #expect(try space.load(UInt8.self, at: at) == 7)
    #expect(try space.load(UInt8.self, at: at + 4099) == 9)
    #expect(try space.load(UInt8.self, at: at + 4100) == 0)
    #expect(throws: AccessFault(reason: .noPage, address: at + 2 * page, access: .read)) {
      try space.load(UInt8.self, at: at + 2 * page)
    }
    #expect(throws: AccessFault(reason: .notPermitted, address: at, access: .write)) {
      try space.store(UInt8(1), at: at)
    }
    #expect(space.usage.residentFilePages == 2)
    try space.protect(at: at, length: 3 * page, .all)
    try space.store(UInt8(8), at: at)
    #expect(try space.load(UInt8.self, at: at) == 8)
    #expect(space.usage.residentFilePages == 1)
    #expect(space.usage.residentAnonymousPages == 1)
    // The copy goes, the page comes back.
    try space.dontNeed(at: at, length: page)
    #expect(try space.load(UInt8.self, at: at) == 7)
    // Another space that maps it has pages of its own.
    let other = try AddressSpace(policy: policy, memory: space.memory)
    _ = try other.insert(vdso, length: page, at: .fixed(at), protection: .read)
    #expect(try other.load(UInt8.self, at: at) == 7)

    let vvar = SpecialMapping(name: "[vvar]", kind: .device, content: .fault { _, _ in true })
    let variables = try space.insert(vvar, length: page, protection: .read, allowed: .read)
    #expect(throws: Errno.permissionDenied) {
      try space.protect(at: variables, length: page, [.read, .write])
    }
    let before = space.usage
    #expect(try space.load(UInt8.self, at: variables) == 0)
    #expect(space.usage == before)
    try space.unmap(at: at, length: 3 * page)
    try space.unmap(at: variables, length: page)
    #expect(space.usage.residentFilePages == 0)
    #expect(space.mappings().isEmpty)
  }

  @Test(
    "A mapping that may not be cut refuses it, and nothing changes", arguments: LockPolicy.allCases)
  func cuts(_ policy: LockPolicy) throws {
    let space = try AddressSpace(policy: policy)
    let calls = Calls()
    _ = try space.insert(
      calls.mapping(maySplit: false), length: 4 * page, at: .fixed(at), protection: .read)
    _ = try space.map(length: page, at: .fixed(at - page), protection: .read)
    let before = space.mappings()
    for part in [
      at - page..<at + page, at..<at + page, at + page..<at + 2 * page,
      at + 3 * page..<at + 5 * page,
    ] {
      let length = part.upperBound - part.lowerBound
      #expect(throws: Errno.invalidArgument) {
        try space.unmap(at: part.lowerBound, length: length)
      }
      #expect(throws: Errno.invalidArgument) {
        try space.map(length: length, at: .fixed(part.lowerBound), protection: .read)
      }
      #expect(space.mappings() == before)
    }
    #expect(throws: Errno.invalidArgument) {
      try space.protect(at: at + page, length: page, [.read, .write])
    }
    #expect(space.mappings() == before)
    // Left as it is, a part may be named.
    try space.protect(at: at + page, length: page, .read)
    try space.protect(at: at, length: 4 * page, [.read, .write])
    try space.unmap(at: at - page, length: 5 * page)
    #expect(calls.counts == [0, 1])
  }

  /// As the kernel answers for its own [vvar] and [vdso], probed on Linux 6.18.
  @Test("P1: advice for devices and for special memory", arguments: LockPolicy.allCases)
  func advice(_ policy: LockPolicy) throws {
    let space = try AddressSpace(policy: policy)
    let device = SpecialMapping(name: "[vvar]", kind: .device, content: .fault { _, _ in true })
    let memory = SpecialMapping(name: "[vdso]", content: .bytes([1]))
    let vvar = try space.insert(device, length: page, protection: .read, allowed: .read)
    let vdso = try space.insert(memory, length: page, protection: [.read, .execute])
    let refusedForDevices: [Advice] = [
      .dontNeed, .dontNeedLocked, .cold, .pageOut, .populateRead, .doFork,
    ]
    for advice in refusedForDevices {
      #expect(throws: Errno.invalidArgument, "\(advice)") {
        try space.advise(advice, at: vvar, length: page)
      }
      try space.advise(advice, at: vdso, length: page)
    }
    for advice in [.free, .installGuard, .removeGuard, .doDump] as [Advice] {
      for at in [vvar, vdso] {
        #expect(throws: Errno.invalidArgument, "\(advice)") {
          try space.advise(advice, at: at, length: page)
        }
      }
    }
    for advice in [.dontFork, .dontDump, .mergeable, .hugePage, .wipeOnFork] as [Advice] {
      try space.advise(advice, at: vdso, length: page)
    }
    #expect(try space.load(UInt8.self, at: vdso) == 1)
  }

  @Test("V1: split three times, four pieces are closed", arguments: LockPolicy.allCases)
  func pieces(_ policy: LockPolicy) throws {
    let calls = Calls()
    do {
      let space = try AddressSpace(policy: policy)
      _ = try space.insert(calls.mapping(), length: 8 * page, at: .fixed(at), protection: .read)
      #expect(try space.load(UInt64.self, at: at + 5 * page) == 6)
      // Two splits.
      try space.protect(at: at + 2 * page, length: 2 * page, [.read, .write])
      #expect(calls.counts == [2, 0])
      // One more: its head stays, and the piece behind it goes with the next mapping.
      try space.unmap(at: at + 6 * page, length: 2 * page)
      #expect(calls.counts == [3, 1])
      #expect(space.mappings().count == 3)
      _ = try space.map(length: 3 * page, at: .fixed(at), protection: .read)
      #expect(calls.counts == [4, 3])
      #expect(try space.load(UInt64.self, at: at + 5 * page) == 6)
      // In the middle.
      try space.unmap(at: at + 4 * page, length: page)
      #expect(calls.counts == [5, 4])
      // What is left goes with the space: one at 3 pages, one at 5.
    }
    #expect(calls.counts == [5, 6])
    #expect(calls.filled.load(ordering: .relaxed) == 1)
  }

  @Test("Random cuts: pieces opened and closed add up to the pieces there are")
  func manyCuts() throws {
    var random = SeededRandom(for: "SpecialTests.manyCuts")
    let calls = Calls()
    var inserted = 0
    do {
      let space = try makeSpace(.ranged)
      for _ in 0..<20 {
        do throws(Errno) {
          _ = try space.insert(
            calls.mapping(), length: 60 * page, at: .fixed(at), protection: .read)
          inserted += 1
        } catch { #expect(error == .noMemory) }
        for _ in 0..<30 {
          let start = at + UInt64.random(in: 0..<60, using: &random) * page
          let length = UInt64.random(in: 1...8, using: &random) * page
          do throws(Errno) {
            if Int.random(in: 0..<3, using: &random) == 0 {
              try space.unmap(at: start, length: length)
            } else {
              let rights: Protection = Bool.random(using: &random) ? .read : [.read, .write]
              try space.protect(at: start, length: length, rights)
            }
          } catch { #expect(error == .noMemory) }
          #expect(inserted + calls.counts[0] - calls.counts[1] == space.mappings().count)
        }
        if Bool.random(using: &random) { try space.unmap(at: at, length: 60 * page) }
      }
      #expect(inserted > 1)
    }
    #expect(inserted + calls.counts[0] == calls.counts[1])
  }
}
