// SPDX-License-Identifier: Apache-2.0
//
// Everything that files can meet, in 8 threads: truncation and holes, write-back and eviction, faults, mappings that come,
// move and go, forks, copies between spaces.
//
// STRESS_SECONDS=n runs it longer than once, STRESS_POLICIES="ranged perVMA" under some policies only: a test runner has as
// many cases at a time as processors.

import CRangeland
import Glibc
import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct FileStressTests {
  private static let policies = LockPolicy.allCases.filter { policy in
    guard let asked = getenv("STRESS_POLICIES") else { return true }
    return String(cString: asked).split(separator: " ").contains { $0 == "\(policy)" }
  }

  @Test(arguments: policies)
  func `files against everything`(_ policy: LockPolicy) throws {
    let seconds = getenv("STRESS_SECONDS").flatMap { UInt64(String(cString: $0)) } ?? 0
    let end = rl_monotonic_ns() + seconds * 1_000_000_000
    var runs = 0
    repeat {
      let random = SeededRandom(for: "files against everything, \(policy), run \(runs)")
      try withWatchdog(seconds: 300, "files against everything, \(policy)") {
        try FileStress(policy, random.seed).run()
      }
      runs += 1
    } while rl_monotonic_ns() < end
    if seconds > 0 { print("\(policy): \(runs) runs") }
  }
}

/// One run: a file of 16 pages, of which the first two never go, a space that is forked, and another one.
private final class FileStress: Sendable {
  private let memory: PhysicalMemory
  private let file: TestFile
  private let object: FileObject
  private let space: AddressSpace
  private let other: AddressSpace
  private let random: SeededRandom
  /// Threads that have not ended, but for those that go on until others have.
  private let left = Atomic<Int>(6)
  private let frames: Int

  private static let pages: UInt64 = 16
  private static let rounds = 120
  /// Where the threads that store map the file, and where others map and unmap parts of it.
  private static let home = base
  private static let parts = base + 64 * page
  /// Memory that only copies between the spaces use.
  private static let own = base + (1 << 30)

  init(_ policy: LockPolicy, _ seed: UInt64) throws {
    (memory, space, other) = try makeSpaces(policy)
    file = try TestFile(pages: Int(Self.pages))
    frames = memory.framesInUse
    object = try FileObject(descriptor: file.descriptor, memory: memory)
    random = SeededRandom(seed: seed)
    for user in [space, other] {
      _ = try user.map(
        object, length: Self.pages * page, at: .fixed(Self.home), protection: [.read, .write],
        sharing: .shared)
      _ = try user.map(length: 4 * page, at: .fixed(Self.own), protection: [.read, .write])
    }
  }

  func run() throws {
    runThreads(8) { thread in
      var generator = self.random.fork(thread)
      switch thread {
      case 0: self.repeating { self.resize(&generator) }
      case 1: self.untilOthersEnd { self.writeBack() }
      case 2: self.repeating { self.fork(&generator) }
      case 3: self.repeating { self.mapParts(&generator) }
      case 4: self.storeNumbers(self.space, 4, &generator)
      case 5: self.storeNumbers(self.other, 5, &generator)
      case 6: self.untilOthersEnd { self.copy(&generator) }
      default: self.repeating { self.change(&generator) }
      }
    }
    try check()
  }

  private func repeating(_ body: () -> Void) {
    for _ in 0..<Self.rounds { body() }
    left.subtract(1, ordering: .relaxed)
  }

  private func untilOthersEnd(_ body: () -> Void) {
    while left.load(ordering: .relaxed) > 0 { body() }
  }

  private func access(_ body: () throws -> Void) {
    do { try body() } catch {
      precondition(error is AccessFault || error is Errno, "\(error)")
      if let fault = error as? AccessFault { precondition(fault.reason != .outOfMemory) }
    }
  }

  private func resize(_ random: inout SeededRandom) {
    if random.below(3) == 0 {
      try! object.punchHole(
        at: (2 + random.below(Self.pages - 3)) * page + random.below(2) * 100, length: page)
    } else {
      try! object.truncate(to: (2 + random.below(Self.pages - 1)) * page)
    }
  }

  private func writeBack() {
    memory.writeBackAll()
    _ = object.object.evict(0..<Self.pages, atMost: .max, memory.reclaimer.context())
    rl_yield()
  }

  private func fork(_ random: inout SeededRandom) {
    let child = try! space.fork()
    for _ in 0..<8 {
      let at = (random.below(2) == 0 ? Self.home : Self.parts) + random.below(Self.pages) * page
      access { _ = try child.load(UInt64.self, at: at + 512) }
      access { try child.store(random.next(), at: at + 1024) }
    }
    access { try child.synchronize(at: Self.home, length: Self.pages * page) }
    // What one thread has copied is of one instant.
    let first = try! child.load(UInt64.self, at: Self.own)
    let second = try! child.load(UInt64.self, at: Self.own + page)
    precondition(first >= second && first - second <= 1, "\(first), \(second)")
    if random.below(2) == 0 { try! child.unmap(at: 0, length: Address.spaceEnd) }
  }

  private func mapParts(_ random: inout SeededRandom) {
    let index = random.below(Self.pages - 4)
    let at = Self.parts + index * page
    _ = try! space.map(
      object, offset: random.below(12) * page, length: 4 * page, at: .fixed(at),
      protection: [.read, .write], sharing: random.below(2) == 0 ? .shared : .private)
    for i in 0..<4 as Range<UInt64> {
      access { try space.store(random.next(), at: at + i * page + 1024) }
    }
    if random.below(3) == 0 {
      access { try space.protect(at: at + page, length: 2 * page, .read) }
    }
    if random.below(2) == 0 { try! space.unmap(at: at + random.below(3) * page, length: 2 * page) }
  }

  /// Stores its rounds to a word of its own in the pages that never go, and elsewhere.
  private func storeNumbers(_ user: AddressSpace, _ thread: UInt64, _ random: inout SeededRandom) {
    for round in 1...UInt64(Self.rounds * 4) {
      try! user.store(round, at: Self.home + round % 2 * page + 64 * thread)
      access {
        try user.store(round, at: Self.home + random.below(Self.pages) * page + 64 * thread)
      }
      if round % 16 == 0 {
        try! user.synchronize(at: Self.home + round % 2 * page, length: page)
        var seen: UInt64 = 0
        let offset = Int64(round % 2 * page + 64 * thread)
        let count = try! withUnsafeMutableBytes(of: &seen) {
          try file.descriptor.read(fromAbsoluteOffset: offset, into: $0)
        }
        precondition(count == 8 && seen == round, "\(seen) is in the file after msync of \(round)")
      }
      if round % 32 == 0 { try! user.dontNeed(at: Self.home, length: Self.pages * page) }
    }
    left.subtract(1, ordering: .relaxed)
  }

  /// Numbers from the other space into two pages of the one that is forked.
  private func copy(_ random: inout SeededRandom) {
    let number = try! space.load(UInt64.self, at: Self.own) + 1
    try! other.store(number, at: Self.own + 2 * page)
    for target in [Self.own, Self.own + page] {
      let count = try! space.read(from: other, at: Self.own + 2 * page, into: target, length: 8)
      precondition(count == 8)
    }
    let count = try! space.write(to: other, at: Self.own, from: Self.own, length: page + 8)
    precondition(count == page + 8)
    rl_yield()
  }

  private func change(_ random: inout SeededRandom) {
    let at = Self.parts + random.below(2) * 32 * page
    _ = try! other.map(
      object, length: Self.pages * page, at: .fixed(at), protection: [.read, .write],
      sharing: random.below(2) == 0 ? .shared : .private)
    for _ in 0..<4 {
      access { try other.store(random.next(), at: at + random.below(Self.pages) * page + 1024) }
    }
    let to = Self.parts + (64 + random.below(2) * 32) * page
    _ = try! other.remap(at: at, length: 8 * page, to: 8 * page, .fixed(to))
    access { try other.synchronize(at: to, length: 8 * page) }
    access { try other.remapPages(at: to, length: 2 * page, pageOffset: random.below(8)) }
    access {
      _ = try other.writtenPages(in: AddressRange(start: to, end: to + 8 * page), resetting: true)
    }
    try! other.unmap(at: Self.parts, length: 128 * page)
  }

  private func check() throws {
    try object.truncate(to: Self.pages * page)
    for i in 0..<Self.pages { try space.store(i + 1, at: Self.home + i * page + 2048) }
    try object.synchronize()
    func word(_ offset: UInt64) throws -> UInt64 {
      var seen: UInt64 = 0
      _ = try withUnsafeMutableBytes(of: &seen) {
        try file.descriptor.read(fromAbsoluteOffset: Int64(offset), into: $0)
      }
      return seen
    }
    for i in 0..<Self.pages {
      #expect(try word(i * page + 2048) == i + 1)
      #expect(try other.load(UInt64.self, at: Self.home + i * page + 2048) == i + 1)
    }
    let last = UInt64(Self.rounds * 4)
    for thread in 4...5 as ClosedRange<UInt64> {
      #expect(try word(last % 2 * page + 64 * thread) >= last - 1)
    }
    space.checkInvariants()
    other.checkInvariants()
    #expect(object.dirtyBytes == 0)
    for user in [space, other] { try user.unmap(at: 0, length: Address.spaceEnd) }
    #expect(memory.framesInUse == frames + Int(object.residentBytes / page))
  }
}
