// SPDX-License-Identifier: Apache-2.0
//
// Operations against each other: P4, adjacent changes of one VMA, identities against splits.

import CRangeland
import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

/// Loops are shorter under ThreadSanitizer and for every further policy, as long as one runs in full.
private func rounds(_ full: Int, _ policy: LockPolicy) -> Int {
  #if RANGELAND_TSAN
    return full / 50
  #else
    return policy == .ranged ? full : full / 10
  #endif
}

@Suite struct SpaceRaceTests {
  @Test(arguments: LockPolicy.allCases)
  func `P4 no write succeeds after protect has returned`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 1)
    let limit = rounds(3000, policy)
    // Word 0 is written by the writer. After protect has returned it may not move.
    let stop = Flag()
    let writes = SharedCounter()
    withWatchdog(seconds: 120, "P4 protect") {
      runThreads(2) { thread in
        if thread == 0 {
          var i: UInt64 = 0
          while !stop.isRaised {
            i += 1
            do throws(AccessFault) {
              try space.store(i, at: base)
              writes.value += 1
            } catch {
              if error.reason != .notPermitted { fatalError("\(error)") }
            }
          }
        } else {
          // On a busy machine all rounds would else fit in before the writer gets a processor.
          while writes.value == 0 { rl_yield() }
          do {
            for _ in 0..<limit {
              try space.protect(at: base, length: page, .read)
              let first = try space.load(UInt64.self, at: base)
              for _ in 0..<20 { rl_cpu_relax() }
              let second = try space.load(UInt64.self, at: base)
              if first != second { fatalError("a write came through after protect") }
              try space.protect(at: base, length: page, [.read, .write])
            }
          } catch { fatalError("\(error)") }
          stop.raise()
        }
      }
    }
    #expect(writes.value > 0, "the writer never wrote")
  }

  @Test(arguments: LockPolicy.allCases)
  func `P4 a reader never faults while the right to write comes and goes`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    for i in 0..<4 as Range<UInt64> { try space.store(i + 1, at: base + i * page) }
    let limit = rounds(50_000, policy)
    let stop = Flag()
    let reads = SharedCounter()
    withWatchdog(seconds: 120, "P4 flip") {
      runThreads(2) { thread in
        do {
          if thread == 0 {
            while !stop.isRaised {
              for i in 0..<4 as Range<UInt64> {
                let value = try space.load(UInt64.self, at: base + i * page)
                if value != i + 1 { fatalError("page \(i) reads \(value)") }
                reads.value += 1
              }
            }
          } else {
            for i in 0..<limit {
              let at = base + UInt64(i & 3) * page
              try space.protect(at: at, length: page, .read)
              try space.protect(at: at, length: page, [.read, .write])
            }
            stop.raise()
          }
        } catch { fatalError("\(error)") }
      }
    }
    #expect(reads.value > 0, "the reader never read")
    #expect(layout(space) == ["0..<4 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `P4 replacing a mapping is atomic for its readers`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    let limit = rounds(200_000, policy)
    let stop = Flag()
    let reads = SharedCounter()
    withWatchdog(seconds: 120, "P4 replace") {
      runThreads(2) { thread in
        do {
          if thread == 0 {
            while !stop.isRaised {
              for i in 0..<4 as Range<UInt64> {
                let value = try space.load(UInt64.self, at: base + i * page)
                if value != 0 { fatalError("content of a page that was replaced") }
                reads.value += 1
              }
            }
          } else {
            for _ in 0..<limit {
              _ = try space.map(length: 4 * page, at: .fixed(base), protection: [.read, .write])
            }
            stop.raise()
          }
        } catch { fatalError("\(error)") }
      }
    }
    #expect(reads.value > 0, "the reader never read")
  }

  @Test(arguments: LockPolicy.allCases)
  func `P4 no access succeeds after unmap has returned`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let limit = rounds(5000, policy)
    // Each round maps the page with a tag; the reader must never see a tag older than the round that
    // had been published before it looked.
    let published = SharedCounter()
    withWatchdog(seconds: 120, "P4 unmap") {
      runThreads(2) { thread in
        do {
          if thread == 0 {
            while published.value < UInt64(limit) {
              let least = published.value
              guard let tag = try? space.load(UInt64.self, at: base) else { continue }
              if tag != 0 && tag < least { fatalError("tag \(tag) after round \(least)") }
            }
          } else {
            for round in 1...UInt64(limit) {
              _ = try space.map(length: page, at: .fixed(base), protection: [.read, .write])
              try space.store(round, at: base)
              try space.unmap(at: base, length: page)
              published.value = round
            }
          }
        } catch { fatalError("\(error)") }
      }
    }
    #expect(space.usage.residentAnonymousPages == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `two threads change adjacent ranges of one VMA`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    let limit = rounds(100_000, policy)
    withWatchdog(seconds: 240, "adjacent changes") {
      runThreads(2) { thread in
        do {
          let at = base + UInt64(2 + 2 * thread) * page
          for i in 0..<limit {
            let rights: Protection = i & 1 == 0 ? .read : [.read, .write]
            try space.protect(at: at, length: 2 * page, rights)
            // Nobody else changes these pages, whatever happens to the VMA around them.
            guard let mapping = space.mapping(at: at), mapping.protection == rights,
              space.mapping(at: at + page)?.protection == rights
            else { fatalError("round \(i): \(layout(space))") }
          }
          try space.protect(at: at, length: 2 * page, [.read, .write])
        } catch { fatalError("\(error)") }
      }
    }
    space.checkInvariants()
    #expect(layout(space) == ["0..<8 rw-p"])
    #expect(space.usage.mappings == 1)
  }

  @Test(arguments: LockPolicy.allCases)
  func `first faults racing with splits of the same VMA lose no identity`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    let limit = rounds(100_000, policy)
    let barrier = Barrier(2)
    withWatchdog(seconds: 240, "identity against splits") {
      runThreads(2) { thread in
        do {
          for i in 0..<limit {
            if thread == 0 {
              _ = try space.map(length: 8 * page, at: .fixed(base), protection: [.read, .write])
            }
            barrier.wait()
            if thread == 0 {
              try space.store(UInt64(i), at: base)
              try space.store(UInt64(i), at: base + 7 * page)
            } else {
              try space.protect(at: base + 3 * page, length: page, .read)
              try space.protect(at: base + 3 * page, length: page, [.read, .write])
            }
            barrier.wait()
            if thread == 0 {
              // As in Linux, parts that were apart when they were first written to may have identities of
              // their own and stay apart; but whoever has a page has an identity.
              let now = layout(space)
              if now != ["0..<8 rw-p"] && now != ["0..<4 rw-p", "4..<8 rw-p"]
                && now != ["0..<3 rw-p", "3..<8 rw-p"]
              {
                fatalError("round \(i): \(now)")
              }
              if !hasIdentity(space, base) || !hasIdentity(space, base + 7 * page) {
                fatalError("round \(i): an identity was lost")
              }
              if try space.load(UInt64.self, at: base) != UInt64(i)
                || space.load(UInt64.self, at: base + 7 * page) != UInt64(i)
              {
                fatalError("round \(i): a page was lost")
              }
            }
          }
        } catch { fatalError("\(error)") }
      }
    }
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases, Placement.allCases)
  func `mappings without an address never overlap`(
    _ policy: LockPolicy, _ placement: Placement
  ) throws {
    let space = try makeSpace(policy, placement: placement)
    let limit = rounds(10_000, policy) / 4
    withWatchdog(seconds: 240, "C1 placement") {
      runThreads(4) { thread in
        var random = SeededRandom(seed: 77).fork(thread)
        var mine: [(Address, UInt64)] = []
        do {
          for i in 0..<limit {
            let length = (1 + random.below(64)) * page
            let at = try space.map(length: length, protection: [.read, .write])
            let tag = UInt64(thread) << 32 | UInt64(i)
            try space.store(tag, at: at)
            try space.store(tag, at: at + length - 8)
            mine.append((at, length))
            if try space.load(UInt64.self, at: at) != tag {
              fatalError("two live mappings overlap")
            }
            if mine.count > 16 {
              let (old, size) = mine.remove(at: Int(random.below(16)))
              let first = try space.load(UInt64.self, at: old)
              if try space.load(UInt64.self, at: old + size - 8) != first
                || first >> 32 != UInt64(thread)
              {
                fatalError("somebody else wrote into a live mapping")
              }
              try space.unmap(at: old, length: size)
            }
          }
          for (at, size) in mine { try space.unmap(at: at, length: size) }
        } catch { fatalError("\(error)") }
      }
    }
    space.checkInvariants()
    #expect(space.usage == SpaceUsage(peakResidentPages: space.usage.peakResidentPages))
  }

  @Test(arguments: LockPolicy.allCases)
  func `page tables freed under racing faults lose nothing`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    // Two threads work on neighbouring pages of one page table; each unmap may free the table.
    let limit = rounds(20_000, policy)
    withWatchdog(seconds: 240, "page tables") {
      runThreads(2) { thread in
        do {
          let at = base + UInt64(thread) * page
          for i in 0..<UInt64(limit) {
            _ = try space.map(length: page, at: .fixed(at), protection: [.read, .write])
            try space.store(i, at: at)
            if try space.load(UInt64.self, at: at) != i { fatalError("a page was lost") }
            try space.unmap(at: at, length: page)
          }
        } catch { fatalError("\(error)") }
      }
    }
    #expect(space.usage.residentAnonymousPages == 0)
    #expect(space.memory.framesInUse <= 1)
  }

  @Test(arguments: LockPolicy.allCases)
  func `a storm of all operations leaves a true space`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let random = SeededRandom(for: "storm \(policy)")
    let limit = rounds(20_000, policy)
    withWatchdog(seconds: 240, "storm") {
      runThreads(4) { thread in
        var random = random.fork(thread)
        for _ in 0..<limit {
          let at = base + random.below(64) * page
          let length = (1 + random.below(16)) * page
          do {
            switch random.below(6) {
            case 0: _ = try space.map(length: length, at: .fixed(at), protection: [.read, .write])
            case 1: try space.unmap(at: at, length: length)
            case 2:
              try space.protect(
                at: at, length: length, random.chance(50) ? .read : [.read, .write])
            case 3: try space.dontNeed(at: at, length: length)
            case 4: try space.store(UInt64(thread), at: at)
            default: _ = try space.load(UInt64.self, at: at)
            }
          } catch let error as Errno {
            if error != .noMemory { fatalError("\(error)") }
          } catch let fault as AccessFault {
            if fault.reason == .outOfMemory { fatalError("\(fault)") }
          } catch { fatalError("\(error)") }
        }
      }
    }
    space.checkInvariants()
    try space.unmap(at: base, length: 128 * page)
    #expect(space.usage.virtualPages == 0)
    #expect(space.usage.mappings == 0)
    #expect(space.usage.residentAnonymousPages == 0)
    #expect(space.memory.framesInUse <= 1)
  }
}

/// Whether the VMA at `address` has an anonymous identity.
private func hasIdentity(_ space: AddressSpace, _ address: Address) -> Bool {
  let context = space.reclaimer.context()
  context.pin()
  defer { context.unpin() }
  return space.layout.pointee.find(address)?.pointee.anonymous != nil
}

/// A number that one thread writes and others read.
final class SharedCounter: Sendable {
  private let word = Atomic<UInt64>(0)
  var value: UInt64 {
    get { word.load(ordering: .acquiring) }
    set { word.store(newValue, ordering: .releasing) }
  }
  /// Takes one off; for several threads.
  func subtract() { word.subtract(1, ordering: .releasing) }
}
