// SPDX-License-Identifier: Apache-2.0
//
// V6: memory policies of mappings and threads.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct PolicyTests {
  @Test(arguments: LockPolicy.allCases)
  func `a policy splits at its range, keeps others from merging, and merges back`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    let bind = try MemoryPolicy(.bind, nodes: 1)
    try space.setPolicy(at: base, length: page, bind)
    #expect(space.mappings().map(\.range.length) == [page, 3 * page])
    #expect(try space.policy(at: base + 5) == bind)
    #expect(try space.policy(at: base + page) == .default)
    // The same policy, made anew.
    try space.setPolicy(at: base + page, length: 3 * page, try MemoryPolicy(.bind, nodes: 3))
    #expect(space.mappings().count == 1)
    // A new mapping has none.
    try mapPages(space, 4, 1)
    #expect(space.mappings().count == 2)
    try space.protect(at: base, length: 2 * page, .read)
    #expect(try space.policy(at: base) == bind)
    try space.setPolicy(at: base - page, length: 8 * page, .default)
    #expect(space.mappings().count == 2)
    #expect(try space.policy(at: base) == .default)
    space.checkInvariants()
  }

  @Test func `holes and ranges`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 1)
    try mapPages(space, 2, 1)
    let bind = try MemoryPolicy(.bind, nodes: 1)
    let before = space.mappings()
    for (first, count) in [(0, 3), (0, 2), (1, 1), (1, 2), (2, 2)] as [(UInt64, UInt64)] {
      #expect(throws: Errno.badAddress) {
        try space.setPolicy(at: base + first * page, length: count * page, bind)
      }
    }
    #expect(throws: Errno.badAddress) {
      try space.setPolicy(at: base + page, length: page, .default)
    }
    #expect(throws: Errno.invalidArgument) { try space.setPolicy(at: base + 1, length: 1, bind) }
    #expect(throws: Errno.invalidArgument) { try space.setPolicy(at: base, length: .max, bind) }
    #expect(throws: Errno.badAddress) { try space.policy(at: base + page) }
    try space.setPolicy(at: base + page, length: 0, bind)
    try space.setPolicy(at: base, length: 3 * page, .default)
    #expect(space.mappings() == before)
    // Strict: nodes that name none, over a page that is there.
    let local = try MemoryPolicy(.local)
    try space.setPolicy(at: base, length: page, local, strict: true)
    try space.store(UInt8(1), at: base)
    #expect(throws: Errno.ioError) {
      try space.setPolicy(at: base, length: page, local, strict: true)
    }
  }

  @Test func `policies that there cannot be`() throws {
    typealias Row = (MemoryPolicy.Mode, MemoryPolicy.Flags, UInt64)
    let refused: [Row] = [
      (.default, [], 1), (.bind, [], 0), (.bind, [], 2), (.interleave, [], 0), (.local, [], 1),
      (.preferred, .staticNodes, 0), (.bind, [.staticNodes, .relativeNodes], 1),
      (.interleave, .balancing, 1), (.bind, .staticNodes, 2),
    ]
    for (mode, flags, nodes) in refused {
      #expect(throws: Errno.invalidArgument) { try MemoryPolicy(mode, flags: flags, nodes: nodes) }
    }
    #expect(try MemoryPolicy(.preferred).mode == .local)
    #expect(try MemoryPolicy(.bind, nodes: 3) == MemoryPolicy(.bind, nodes: 1))
    #expect(
      try MemoryPolicy(.bind, flags: .staticNodes, nodes: 3)
        != MemoryPolicy(.bind, flags: .staticNodes, nodes: 1))
  }

  @Test func `a thread's policy is its own, and raw calls read masks from the space`() throws {
    let space = try makeSpace(.ranged)
    try mapPages(space, 0, 2)
    try space.store(UInt64(1), at: base)
    func call(_ call: LinuxCall, _ a: UInt64...) -> Int {
      let all = a + [UInt64](repeating: 0, count: 6 - a.count)
      return space.systemCall(
        call, LinuxArguments(all[0], all[1], all[2], all[3], all[4], all[5]))
    }
    #expect(call(.setMempolicy, 2, base, 64) == 0)
    #expect(space.threadPolicy == (try MemoryPolicy(.bind, nodes: 1)))
    withWatchdog(seconds: 60, "thread policy") {
      TestThread { precondition(space.threadPolicy == .default) }.join()
    }
    #expect(call(.getMempolicy, base + 8, base + 16, 64, 0, 0) == 0)
    #expect(try space.load(Int32.self, at: base + 8) == 2)
    #expect(try space.load(UInt64.self, at: base + 16) == 1)
    #expect(call(.mbind, base, page, 3, base, 64, 0) == 0)
    #expect(call(.getMempolicy, base + 8, 0, 0, base, 2) == 0)
    #expect(try space.load(Int32.self, at: base + 8) == 3)
    #expect(call(.getMempolicy, base + 8, 0, 0, base + 2 * page, 2) == -14)
    #expect(call(.getMempolicy, base + 8, 0, 0, base, 0) == -22)
    #expect(call(.getMempolicy, base + 8, 0, 0, base, 8) == -22)
    #expect(call(.getMempolicy, base + 8, base + 16, 64, 0, 4) == 0)
    #expect(call(.mbind, base, page, 3, base + 2 * page, 64, 0) == -14)
    #expect(call(.mbind, base, page, 7, base, 64, 0) == -22)
    #expect(call(.mbind, base, page, 3, base, 64, 8) == -22)
    #expect(call(.mbind, base, page, 3, base, 64, 4) == -1)
    #expect(call(.mbind, base, page, 3, base, 40_000, 0) == -22)
    // A node that is not there, in the second word.
    try space.store(UInt64(1), at: base + 32)
    #expect(call(.mbind, base, page, 3, base + 24, 129, 0) == -22)
    // MPOL_PREFERRED with MPOL_F_STATIC_NODES: as asked for.
    try space.store(UInt64(3), at: base)
    #expect(call(.setMempolicy, 0x8001, base, 64) == 0)
    #expect(call(.getMempolicy, 0, base + 16, 64, 0, 0) == 0)
    #expect(try space.load(UInt64.self, at: base + 16) == 3)
    #expect(call(.setMempolicy, 0, 0, 0) == 0)
    #expect(space.threadPolicy == .default)
    // The node of a page: of one that is there whatever its mapping's rights are, unless there are none.
    let (first, second) = (base, base + page)
    let answer = second + 8
    try space.protect(at: first, length: page, .write)
    #expect(call(.getMempolicy, answer, 0, 0, first, 3) == 0)
    #expect(try space.load(Int32.self, at: answer) == 0)
    try space.protect(at: first, length: page, [])
    #expect(call(.getMempolicy, answer, 0, 0, first, 3) == -14)
  }

  @Test(
    .enabled(if: AddressSpace.canFailAllocations, "allocations fail in checked builds only"))
  func `the node of a page that there is no memory for is ENOMEM, not EFAULT`() throws {
    var refusals = 0
    for k in 0..<100 {
      let space = try makeSpace(.ranged)
      try mapPages(space, 0, 4)
      space.failAllocation(after: k)
      let result = space.systemCall(
        LinuxCall.getMempolicy, LinuxArguments(0, 0, 0, base + page, 3))
      if !space.disarmFailure() { break }
      // What can do without gives the answer.
      #expect(result == -12 || result == 0, "allocation \(k)")
      if result == -12 { refusals += 1 }
      #expect(
        space.systemCall(LinuxCall.getMempolicy, LinuxArguments(0, 0, 0, base + page, 3)) == 0)
    }
    #expect(refusals > 0)
  }
}
