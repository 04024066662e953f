// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct FileRaceTests {
  // Found by histories of 8 threads: the opener asked for the size, another made the file shorter and let go of it.
  @Test(arguments: [false, true])
  func `who opens a file goes by the size it has then`(_ isHeld: Bool) throws {
    let memory = try PhysicalMemory(frameLimit: 64)
    let file = try TestFile(pages: 5)
    let stale = try FileAccess(file.descriptor)
    var other: FileObject? = try FileObject(descriptor: file.descriptor, memory: memory)
    try other?.truncate(to: page)
    if !isHeld { other = nil }
    let object = try FileObject(stale, opener: nil, memory: memory, released: nil)
    #expect(object.size == page)
    withExtendedLifetime(other) {}
  }

  @Test(arguments: LockPolicy.allCases)
  func `msync keeps a mapping that is unmapped while it writes back, and lets it go`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let target = Latched<Address>(0)
    let pager = TestPager()
    pager.state.withLock {
      $0.writing = { _ in try! space.unmap(at: target.withLock { $0 }, length: 2 * page) }
    }
    let object = try FileObject(pager: pager, name: "unmapped", size: 2 * page, memory: memory)
    let at = try space.map(
      object, length: 2 * page, protection: [.read, .write], sharing: .shared)
    target.withLock { $0 = at }
    try space.store(UInt8(77), at: at)
    try space.synchronize(at: at, length: page)
    #expect(pager.state.withLock { $0.written[0] } == 77)
    #expect(refusal { _ = try byte(space, at) } == .notMapped)
    pager.state.withLock { $0.writing = nil }
  }

  @Test(arguments: LockPolicy.allCases)
  func `a pager runs under no lock: its page can be unmapped, and others used`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, _) = try makeSpaces(policy)
    let isInside = Atomic<Bool>(false)
    let mayGo = Atomic<Bool>(false)
    let pager = TestPager { page in
      if page != 3 { return }
      isInside.store(true, ordering: .releasing)
      while !mayGo.load(ordering: .acquiring) { rl_yield() }
    }
    let object = try FileObject(pager: pager, name: "slow", size: 8 * page, memory: memory)
    let at = try space.map(object, length: 8 * page, protection: .read)
    let failures = Latched<[AccessFault.Reason?]>([])
    withWatchdog(seconds: 120, "slow pager") {
      runThreads(3) { me in
        if me < 2 {
          let result = refusal { _ = try byte(space, at + 3 * page) }
          failures.withLock { $0.append(result) }
          return
        }
        while !isInside.load(ordering: .acquiring) { rl_yield() }
        precondition(refusal { _ = try byte(space, at + 4 * page) } == nil)
        try! space.protect(at: at + 2 * page, length: page, [])
        try! space.unmap(at: at + 3 * page, length: page)
        mayGo.store(true, ordering: .releasing)
      }
    }
    // The fault looked again, and found nothing mapped there.
    #expect(failures.withLock { $0 } == [.notMapped, .notMapped])
    #expect(pager.state.withLock { $0.fills.count { $0 == 3 } } == 1, "one of them asked")
  }

  @Test(arguments: LockPolicy.allCases)
  func `no store to a shared mapping is lost, whatever writes back, evicts and moves beside it`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, other) = try makeSpaces(policy)
    let pages: UInt64 = 6
    let file = try TestFile(pages: Int(pages))
    let object = try FileObject(descriptor: file.descriptor, memory: memory)
    let threads = 3
    let rounds = 400
    let places = try (0..<threads).map { _ in
      try space.map(object, length: pages * page, protection: [.read, .write], sharing: .shared)
    }
    let isDone = Atomic<Int>(0)
    withWatchdog(seconds: 300, "stores and write-back") {
      runThreads(threads + 2) { me in
        if me < threads {
          var at = places[me]
          var random = SeededRandom(for: "file stores \(me)")
          for i in 1...rounds {
            let index = random.below(pages)
            // Each thread has a word of its own in each page.
            try! space.store(UInt64(i), at: at + index * page + 64 * UInt64(me))
            if i % 40 == 0 {
              at = try! space.remap(
                at: at, length: pages * page, to: pages * page,
                .fixed(base + UInt64(me * 64 + i % 80 / 40 * 16) * page))
            }
            if i % 25 == 0 { try! space.dontNeed(at: at, length: pages * page) }
          }
          for index in 0..<pages {
            try! space.store(UInt64(rounds + 1), at: at + index * page + 64 * UInt64(me))
          }
          isDone.add(1, ordering: .relaxed)
        } else if me == threads {
          let context = memory.reclaimer.context()
          while isDone.load(ordering: .relaxed) < threads {
            memory.writeBackAll()
            _ = object.object.evict(0..<pages, atMost: .max, context)
            rl_yield()
          }
        } else {
          while isDone.load(ordering: .relaxed) < threads {
            let at = try! other.map(object, length: pages * page, protection: [.read, .write])
            for index in 0..<pages {
              for thread in 0..<threads {
                _ = try! other.load(UInt64.self, at: at + index * page + 64 * UInt64(thread))
              }
            }
            try! other.store(UInt64(1) << 60, at: at)
            try! other.unmap(at: at, length: pages * page)
          }
        }
      }
    }
    try object.synchronize()
    for index in 0..<pages {
      for thread in 0..<threads {
        var value: UInt64 = 0
        let offset = Int64(index * page) + 64 * Int64(thread)
        _ = try withUnsafeMutableBytes(of: &value) {
          try file.descriptor.read(fromAbsoluteOffset: offset, into: $0)
        }
        #expect(value == UInt64(rounds + 1), "page \(index), thread \(thread)")
      }
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `truncation against faults, moves and unmaps: no page behind the end is ever seen`(
    _ policy: LockPolicy
  ) throws {
    let (memory, space, other) = try makeSpaces(policy)
    let pages: UInt64 = 8
    let object = try FileObject(
      pager: TestPager(), name: "pager", size: pages * page, memory: memory)
    let stops = Atomic<Bool>(false)
    /// Odd: the object is short.
    let epoch = Atomic<UInt64>(0)
    withWatchdog(seconds: 300, "truncation") {
      runThreads(4) { me in
        if me == 0 {
          for _ in 0..<60 {
            try! object.truncate(to: 2 * page)
            epoch.add(1, ordering: .sequentiallyConsistent)
            for _ in 0..<50 { rl_yield() }
            epoch.add(1, ordering: .sequentiallyConsistent)
            try! object.truncate(to: pages * page)
          }
          stops.store(true, ordering: .relaxed)
          return
        }
        let user = me == 1 ? other : space
        var random = SeededRandom(for: "truncation \(me)")
        var at = try! user.map(
          object, length: pages * page, at: .fixed(base + UInt64(me) * 64 * page),
          protection: [.read, .write], sharing: me == 2 ? .private : .shared)
        while !stops.load(ordering: .relaxed) {
          let index = random.below(pages)
          let before = epoch.load(ordering: .sequentiallyConsistent)
          let result = refusal {
            if random.below(2) == 0 {
              _ = try byte(user, at + index * page)
            } else {
              try user.store(UInt8(7), at: at + index * page)
            }
          }
          let after = epoch.load(ordering: .sequentiallyConsistent)
          if before == after && before & 1 == 1 {
            precondition(
              (result == .noPage) == (index >= 2), "page \(index): \(String(describing: result))")
          }
          precondition(result == nil || result == .noPage)
          if random.below(20) == 0 {
            let target = base + UInt64(me) * 64 * page + random.below(2) * 32 * page
            if target != at {
              at = try! user.remap(
                at: at, length: pages * page, to: pages * page, .fixed(target))
            }
          }
        }
        try! user.unmap(at: at, length: pages * page)
      }
    }
    #expect(object.residentBytes <= pages * page)
  }
}
