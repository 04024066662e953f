// SPDX-License-Identifier: Apache-2.0
//
// Forks beside threads that write, fault, map and unmap. D-1.

import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

@Suite struct ForkRaceTests {
  /// D-1: a thread stores the same number to two pages far apart, one after the other; at no instant is the second
  /// ahead of the first, nor more than one behind. Both orders of the addresses.
  @Test(arguments: LockPolicy.allCases, [false, true])
  func `D-1 a child is a copy of one instant`(_ policy: LockPolicy, _ isDescending: Bool) throws {
    let space = try makeSpace(policy)
    let pages: UInt64 = 3_000
    try mapPages(space, 0, pages)
    for i in 0..<pages { try space.store(UInt8(0), at: base + i * page) }
    let first = base + (isDescending ? (pages - 1) * page : 0)
    let second = base + (isDescending ? 0 : (pages - 1) * page)
    let isOver = Atomic<Bool>(false)
    try withWatchdog(seconds: 120, "D-1 \(policy)") {
      let started = Barrier(3)
      let writers = (0..<2 as Range<UInt64>).map { lane in
        TestThread {
          started.wait()
          var i: UInt64 = 0
          while !isOver.load(ordering: .relaxed) {
            i += 1
            try! space.store(i, at: first + 8 * lane)
            try! space.store(i, at: second + 8 * lane)
          }
        }
      }
      started.wait()
      for _ in 0..<60 {
        let child = try space.fork()
        for lane in 0..<2 as Range<UInt64> {
          let x = try child.load(UInt64.self, at: first + 8 * lane)
          let y = try child.load(UInt64.self, at: second + 8 * lane)
          #expect(x >= y && x - y <= 1)
        }
      }
      isOver.store(true, ordering: .relaxed)
      for writer in writers { writer.join() }
    }
  }

  /// Writes that one thread saw before it made its own are in a child that has those.
  @Test(arguments: LockPolicy.allCases)
  func `a child has the causes of what it has`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 1_024)
    for i in 0..<1_024 as Range<UInt64> { try space.store(UInt8(0), at: base + i * page) }
    let far = base + 1_023 * page
    let isOver = Atomic<Bool>(false)
    try withWatchdog(seconds: 120, "causes \(policy)") {
      let cause = TestThread {
        var i: UInt64 = 0
        while !isOver.load(ordering: .relaxed) {
          i += 1
          try! space.store(i, at: base)
        }
      }
      let effect = TestThread {
        while !isOver.load(ordering: .relaxed) {
          let seen = try! space.load(UInt64.self, at: base)
          try! space.store(seen, at: far)
        }
      }
      for _ in 0..<100 {
        let child = try space.fork()
        let copied = try child.load(UInt64.self, at: far)
        #expect(try child.load(UInt64.self, at: base) >= copied)
      }
      isOver.store(true, ordering: .relaxed)
      cause.join()
      effect.join()
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `forks beside every change leave both sides whole`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let frames = space.memory.framesInUse
    let random = SeededRandom(for: "forks beside changes, \(policy)")
    withWatchdog(seconds: 240, "forks beside changes, \(policy)") {
      runThreads(4) { me in
        var generator = SeededRandom(seed: random.seed &+ UInt64(me))
        for _ in 0..<150 {
          let at = base + UInt64.random(in: 0..<64, using: &generator) * page
          let length = UInt64.random(in: 1...8, using: &generator) * page
          switch Int.random(in: 0..<10, using: &generator) {
          case 0:
            let child = try! space.fork()
            child.checkInvariants()
            // It lives on its own, beside the parent's other threads.
            for mapping in child.mappings() where mapping.protection.contains(.write) {
              try! child.store(UInt64(me), at: mapping.range.start)
            }
            let grandchild = try! child.fork()
            try! child.unmap(at: 0, length: Address.spaceEnd)
            grandchild.checkInvariants()
          case 1...3:
            _ = try! space.map(
              length: length, at: .fixed(at), protection: [.read, .write],
              sharing: Bool.random(using: &generator) ? .private : .shared)
          case 4: try! space.unmap(at: at, length: length)
          case 5: try? space.protect(at: at, length: length, .read)
          case 6: try? space.dontNeed(at: at, length: length)
          default:
            for i in 0..<4 as Range<UInt64> { try? space.store(UInt64(me), at: at + i * page) }
          }
        }
      }
    }
    space.checkInvariants()
    try space.unmap(at: 0, length: Address.spaceEnd)
    #expect(space.memory.framesInUse == frames)
  }
}
