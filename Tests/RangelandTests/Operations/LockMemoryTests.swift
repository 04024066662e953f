// SPDX-License-Identifier: Apache-2.0
//
// M4 and M10: locked memory, and mappings that are locked when they are made.

import RangelandTestSupport
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct LockMemoryTests {
  private func at(_ index: UInt64) -> Address { base + index * page }

  private func present(_ space: AddressSpace, _ index: UInt64, _ count: UInt64) -> [UInt64] {
    space.presentPages(in: AddressRange(start: at(index), end: at(index + count))).map {
      ($0 - base) / page
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `M4 the numbers of the table`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    // To whole pages on both sides.
    try space.lockMemory(at: at(0) + 5, length: 4 * page - 10)
    #expect(space.usage.lockedPages == 4)
    #expect(present(space, 0, 8) == [0, 1, 2, 3])
    #expect(layout(space) == ["0..<4 rw-p", "4..<8 rw-p"])
    try space.lockMemory(at: at(0), length: 4 * page)
    #expect(space.usage.lockedPages == 4)
    try space.unlockMemory(at: at(1), length: 2 * page)
    #expect(space.usage.lockedPages == 2)
    #expect(present(space, 0, 8) == [0, 1, 2, 3])
    #expect(layout(space) == ["0..<1 rw-p", "1..<3 rw-p", "3..<4 rw-p", "4..<8 rw-p"])
    try space.lockMemory(at: at(0), length: 4 * page, onFault: true)
    #expect(space.usage.lockedPages == 4)
    #expect(layout(space) == ["0..<4 rw-p", "4..<8 rw-p"])
    try space.unlockMemory(at: at(0), length: 8 * page)
    #expect(layout(space) == ["0..<8 rw-p"])
    #expect(space.usage.lockedPages == 0)
    try space.lockMemory(at: at(4), length: 4 * page)
    let moved = try space.remap(at: at(4), length: 4 * page, to: 8 * page)
    #expect(space.usage.lockedPages == 8)
    // What it has grown by is there.
    #expect(
      space.presentPages(in: AddressRange(start: moved, end: moved + 8 * page)).count == 8)
    try space.protect(at: moved, length: 8 * page, .read)
    #expect(space.usage.lockedPages == 8)
    try space.unmap(at: moved + page, length: 2 * page)
    #expect(space.usage.lockedPages == 6)
    _ = try space.map(length: page, at: .fixed(moved), protection: .read)
    #expect(space.usage.lockedPages == 5)
    try space.unmap(at: 0, length: Address.spaceEnd)
    #expect(space.usage.lockedPages == 0)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `holes and pages without rights leave what Linux leaves`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 3, 1)
    #expect(errno { try space.lockMemory(at: at(0), length: 4 * page) } == .noMemory)
    // Locked up to the hole, and brought in nothing.
    #expect(space.usage.lockedPages == 2 && present(space, 0, 4).isEmpty)
    #expect(errno { try space.unlockMemory(at: at(1), length: 3 * page) } == .noMemory)
    #expect(space.usage.lockedPages == 1)
    #expect(errno { try space.lockMemory(at: at(2), length: page) } == .noMemory)
    try mapPages(space, 10, 2)
    try mapPages(space, 12, 2, [])
    try mapPages(space, 14, 2)
    #expect(errno { try space.lockMemory(at: at(10), length: 6 * page) } == .noMemory)
    #expect(space.usage.lockedPages == 7 && present(space, 10, 6) == [10, 11])
    // As its pages come: nothing to bring in, nothing wrong.
    try space.lockMemory(at: at(12), length: 2 * page, onFault: true)
    #expect(space.usage.lockedPages == 7)
    // A guard is a page that cannot be.
    try mapPages(space, 20, 4)
    try space.advise(.installGuard, at: at(22), length: page)
    #expect(errno { try space.lockMemory(at: at(20), length: 4 * page) } == .noMemory)
    #expect(present(space, 20, 4) == [20, 21])
    for (start, length) in [
      (UInt64.max, UInt64.max), (UInt64.max - 4095, page), (at(20), 0 &- (1 << 40)),
    ] as [(UInt64, UInt64)] {
      #expect(errno { try space.lockMemory(at: start, length: length) } == .invalidArgument)
      #expect(errno { try space.unlockMemory(at: start, length: length) } == .invalidArgument)
    }
    try space.lockMemory(at: at(20), length: .max)
    #expect(
      errno { try space.lockMemory(at: Address.spaceEnd - page, length: 2 * page) } == .noMemory)
    #expect(errno { try space.lockMemory(at: 1 << 63, length: page) } == .noMemory)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `pages come as mlock brings them`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    // Writable private memory gets pages of its own; what may only be read the page of zeros; shared memory its
    // object's page.
    try mapPages(space, 0, 1)
    try mapPages(space, 2, 2, .read)
    try mapPages(space, 5, 1, .write)
    try mapPages(space, 7, 1, .execute)
    try mapPages(space, 9, 1, .write, sharing: .shared)
    for i in [0, 2, 5, 7, 9] as [UInt64] {
      try space.lockMemory(at: at(i), length: (i == 2 ? 2 : 1) * page)
    }
    #expect(present(space, 0, 10) == [0, 2, 3, 5, 7, 9])
    #expect(space.usage.residentAnonymousPages == 2 && space.usage.residentSharedPages == 1)
    #expect(try space.residency(at: at(9), length: page) == [true])
    // Becomes writable: gets its own page at once, where it was not touched.
    try space.protect(at: at(2), length: page, [.read, .write])
    #expect(space.usage.residentAnonymousPages == 3)
    try space.lockMemory(at: at(3), length: page, onFault: true)
    try space.protect(at: at(3), length: page, [.read, .write])
    #expect(space.usage.residentAnonymousPages == 3)
    // A file's page becomes one of its own.
    try space.substituteMapping(
      AddressRange(start: at(20), end: at(22)), protection: .read, sharing: .private, file: 4)
    try space.lockMemory(at: at(20), length: 2 * page)
    #expect(space.usage.residentFilePages == 2)
    try space.advise(.dontNeedLocked, at: at(21), length: page)
    try space.protect(at: at(20), length: 2 * page, [.read, .write])
    #expect(space.usage.residentFilePages == 0 && space.usage.residentAnonymousPages == 5)
    // And one that nobody has read yet.
    try space.substituteMapping(
      AddressRange(start: at(24), end: at(25)), protection: [], sharing: .private, file: 5)
    #expect(errno { try space.lockMemory(at: at(24), length: page) } == .noMemory)
    try space.protect(at: at(24), length: page, [.read, .write])
    #expect(space.usage.residentAnonymousPages == 6 && present(space, 24, 1) == [24])
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `advice cannot take locked pages away`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 4)
    try space.store(UInt64(1), at: at(0))
    try space.advise(.free, at: at(0), length: page)
    try space.lockMemory(at: at(0), length: 4 * page)
    for advice in [.dontNeed, .free, .remove, .cold, .pageOut, .installGuard] as [Advice] {
      #expect(
        errno { try space.advise(advice, at: at(0), length: 4 * page) } == .invalidArgument)
    }
    #expect(present(space, 0, 4) == [0, 1, 2, 3])
    // What was released before is not lost afterwards either.
    try space.unlockMemory(at: at(0), length: 4 * page)
    try space.advise(.pageOut, at: at(0), length: 4 * page)
    #expect(present(space, 0, 4) == [0, 1, 2, 3])
    #expect(try space.load(UInt64.self, at: at(0)) == 1)
    try space.lockMemory(at: at(0), length: 2 * page)
    try space.advise(.dontNeedLocked, at: at(0), length: 4 * page)
    #expect(present(space, 0, 4).isEmpty)
  }

  @Test(arguments: LockPolicy.allCases)
  func `M10 new mappings and the heap are locked, what grows stays as it is`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    space.heapStart = at(1000)
    space.setBreak(to: at(1002))
    let stack = try space.map(
      length: page, at: .fixed(at(5000)), protection: [.read, .write], options: .growsDown)
    try mapPages(space, 0, 1)
    try space.lockAllMemory(.future)
    #expect(space.usage.lockedPages == 0)
    let placed = try space.map(length: 4 * page, protection: [.read, .write])
    #expect(space.usage.lockedPages == 4)
    #expect(try space.residency(at: placed, length: 4 * page) == [true, true, true, true])
    try mapPages(space, 1, 2, [])
    #expect(space.usage.lockedPages == 6)
    #expect(space.setBreak(to: at(1004)) == at(1004))
    #expect(space.usage.lockedPages == 8 && present(space, 1000, 4) == [1002, 1003])
    #expect(
      layout(space) == [
        "0..<1 rw-p", "1..<3 ---p", "1000..<1002 rw-p", "1002..<1004 rw-p", "5000..<5001 rw-p",
      ])
    // Neither mremap nor a stack's growth locks what was not.
    try space.store(UInt8(1), at: stack - 2 * page)
    _ = try space.remap(at: at(0), length: page, to: 3 * page)
    #expect(space.usage.lockedPages == 8)
    try space.lockMemory(at: stack - 2 * page, length: page)
    try space.store(UInt8(1), at: stack - 4 * page)
    #expect(space.usage.lockedPages == 11)
    #expect(present(space, 4990, 12) == [4996, 4998])
    // Special mappings are none.
    _ = try space.insert(
      SpecialMapping(name: "[x]", content: .bytes([1])), length: page, protection: .read)
    #expect(space.usage.lockedPages == 11)
    try space.lockAllMemory([.future, .onFault])
    try mapPages(space, 40, 2)
    #expect(space.usage.lockedPages == 13 && present(space, 40, 2).isEmpty)
    // Asked for and on fault at once is on fault.
    _ = try space.map(
      length: page, at: .fixed(at(50)), protection: [.read, .write],
      options: [.locked, .populate])
    #expect(present(space, 50, 1).isEmpty)
    try space.unlockAllMemory()
    #expect(space.usage.lockedPages == 0)
    try mapPages(space, 60, 2)
    #expect(space.usage.lockedPages == 0)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `all that is there is locked and brought in, whatever cannot be`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try mapPages(space, 4, 2, [])
    try mapPages(space, 8, 2, .read, sharing: .shared)
    let special = try space.insert(
      SpecialMapping(name: "[x]", content: .bytes([1])), length: page, at: .fixed(at(20)),
      protection: .read)
    try mapPages(space, 30, 2)
    try space.advise(.installGuard, at: at(30), length: page)
    try mapPages(space, 40, 600)
    try space.lockAllMemory(.current)
    #expect(space.usage.lockedPages == 608)
    #expect(present(space, 0, 10) == [0, 1, 8, 9])
    #expect(try space.residency(at: special, length: page) == [true])
    // Behind the guard nothing of its mapping; the next one all.
    #expect(present(space, 30, 2).isEmpty && present(space, 40, 600).count == 600)
    try space.lockAllMemory([.current, .onFault])
    #expect(space.usage.lockedPages == 608)
    #expect(space.smaps().contains("VmFlags: rd wr mr mw me lo lf ac "))
    try space.unlockAllMemory()
    #expect(space.usage.lockedPages == 0)
    for wrong in [[], .onFault, LockScope(rawValue: 9)] as [LockScope] {
      #expect(errno { try space.lockAllMemory(wrong) } == .invalidArgument)
    }
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `listings say what is locked`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try space.lockMemory(at: at(0), length: 2 * page)
    #expect(space.mapping(at: at(0))?.flagNames == ["rd", "wr", "mr", "mw", "me", "lo", "ac"])
    #expect(space.smaps().contains("Locked:                8 kB"))
    #expect(space.status().contains("VmLck:\t       8 kB"))
    try space.lockMemory(at: at(0), length: 2 * page, onFault: true)
    #expect(space.mapping(at: at(0))?.flagNames.contains("lf") == true)
    try space.unlockMemory(at: at(0), length: 2 * page)
    #expect(space.mapping(at: at(0))?.flagNames.contains("lo") == false)
    #expect(space.smaps().contains("Locked:                0 kB"))
  }

  @Test(arguments: LockPolicy.allCases)
  func `mappings can be locked and brought in from the start`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let locked = try space.map(length: 2 * page, protection: [.read, .write], options: .locked)
    #expect(try space.residency(at: locked, length: 2 * page) == [true, true])
    #expect(space.usage.lockedPages == 2 && space.usage.residentAnonymousPages == 2)
    let populated = try space.map(length: 2 * page, protection: .read, options: .populate)
    #expect(try space.residency(at: populated, length: 2 * page) == [true, true])
    #expect(space.usage.lockedPages == 2 && space.usage.residentAnonymousPages == 2)
    // Raw: MAP_POPULATE, and MAP_NONBLOCK that takes it back; MAP_LOCKED.
    func raw(_ flags: UInt64) -> [Bool]? {
      let result = space.systemCall(.mmap, LinuxArguments(0, page, 3, 0x22 | flags, .max, 0))
      return result < 0 ? nil : try? space.residency(at: UInt64(result), length: page)
    }
    #expect(raw(0) == [false] && raw(0x8000) == [true] && raw(0x1_8000) == [false])
    #expect(raw(0x2000) == [true] && space.usage.lockedPages == 3)
  }
}

@Suite struct LockLimitTests {
  private func at(_ index: UInt64) -> Address { base + index * page }

  @Test(arguments: LockPolicy.allCases)
  func `RLIMIT_MEMLOCK and CAP_IPC_LOCK`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 8)
    space.limits.lockedMemory = 0
    func mapLocked(_ at: MapAddress, pages: UInt64 = 1) throws {
      _ = try space.map(length: pages * page, at: at, protection: .read, options: .locked)
    }
    #expect(errno { try space.lockMemory(at: at(0), length: 0) } == .notPermitted)
    #expect(errno { try space.lockAllMemory(.future) } == .notPermitted)
    #expect(errno { try space.lockAllMemory(.onFault) } == .invalidArgument)
    #expect(errno { try mapLocked(.anywhere) } == .notPermitted)
    // The address comes first, the type after it.
    #expect(errno { try mapLocked(.fixedNoReplace(at(0))) } == .fileExists)
    #expect(errno { try mapLocked(.fixed(at(0) + 1)) } == .invalidArgument)
    #expect(errno { try mapLocked(.anywhere, pages: (1 << 35) - 16) } == .noMemory)
    #expect(space.systemCall(.mmap, LinuxArguments(at(0), page, 3, 0x2030, .max, 0)) == -1)
    try space.unlockMemory(at: at(0), length: page)
    try space.unlockAllMemory()
    // A limit of a byte is one of no page.
    space.limits.lockedMemory = 1
    #expect(errno { try space.lockMemory(at: at(0), length: 1) } == .noMemory)
    try space.lockMemory(at: at(0), length: 0)
    #expect(errno { try mapLocked(.anywhere) } == .resourceTemporarilyUnavailable)
    #expect(space.systemCall(.mmap, LinuxArguments(at(0), page, 3, 0x2030, .max, 0)) == -11)
    space.limits.lockedMemory = 4 * page
    // Locked pages of the range are credited, holes in it are not.
    try space.lockMemory(at: at(0), length: 3 * page)
    try space.lockMemory(at: at(0), length: 4 * page)
    #expect(errno { try space.lockMemory(at: at(0), length: 5 * page) } == .noMemory)
    #expect(errno { try space.lockMemory(at: at(20), length: page) } == .noMemory)
    try space.unlockMemory(at: at(3), length: page)
    #expect(errno { try space.lockMemory(at: at(7), length: 2 * page) } == .noMemory)
    #expect(space.usage.lockedPages == 3)
    #expect(errno { try space.lockMemory(at: at(7), length: page) } == nil)
    // A fixed mapping gets no credit for what it replaces.
    #expect(errno { try mapLocked(.fixed(at(0))) } == .resourceTemporarilyUnavailable)
    #expect(
      errno { _ = try space.remap(at: at(7), length: page, to: 2 * page) }
        == .resourceTemporarilyUnavailable)
    _ = try space.remap(at: at(7), length: page, to: page, .fixed(at(30)))
    // Below what is locked not even that may be locked again; it may go.
    space.limits.lockedMemory = 2 * page
    #expect(errno { try space.lockMemory(at: at(30), length: page) } == .noMemory)
    try space.unlockMemory(at: at(0), length: 3 * page)
    #expect(space.usage.lockedPages == 1)
    #expect(errno { try space.lockAllMemory(.current) } == .noMemory)
    try space.lockAllMemory(.future)
    try mapPages(space, 40, 1)
    #expect(errno { try mapPages(space, 41, 1) } == .resourceTemporarilyUnavailable)
    space.heapStart = at(1000)
    #expect(space.setBreak(to: at(1001)) == at(1000))
    #expect(space.usage.lockedPages == 2)
    space.limits.canLockBeyondLimit = true
    #expect(space.setBreak(to: at(1001)) == at(1001))
    try space.lockAllMemory(.current)
    #expect(space.usage.lockedPages == space.usage.virtualPages)
    space.limits = Limits(lockedMemory: 0, canLockBeyondLimit: true)
    try space.lockMemory(at: at(0), length: page)
    space.checkInvariants()
  }

  @Test(arguments: LockPolicy.allCases)
  func `a stack that is locked grows within the limit`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    let stack = try space.map(
      length: page, at: .fixed(at(5000)), protection: [.read, .write], options: .growsDown)
    try space.lockMemory(at: stack, length: page)
    space.limits.lockedMemory = 3 * page
    #expect(refusal { try space.store(UInt8(1), at: stack - 3 * page) } == .notMapped)
    try space.store(UInt8(1), at: stack - 2 * page)
    #expect(space.usage.lockedPages == 3)
    try space.unlockAllMemory()
    try space.store(UInt8(1), at: stack - 9 * page)
    #expect(space.usage.lockedPages == 0 && space.usage.stackPages == 10)
  }

  @Test(arguments: LockPolicy.allCases)
  func `an edge of the kernel's arithmetic is one without a limit too`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 2)
    try space.lockMemory(at: at(0), length: page)
    let all = UInt64.max - 4095
    #expect(errno { try space.lockMemory(at: at(1), length: all) } == .noMemory)
    #expect(errno { try space.lockMemory(at: at(0), length: all) } == .invalidArgument)
    space.limits.canLockBeyondLimit = true
    #expect(errno { try space.lockMemory(at: at(1), length: all) } == .invalidArgument)
  }
}

@Suite struct LockMemoryRaceTests {
  /// locked pages never exceed the limit, and at the end exactly what is locked is counted.
  @Test(arguments: LockPolicy.allCases)
  func `locks at the same time stay within the limit`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    space.limits.lockedMemory = 40 * page
    let random = SeededRandom(for: "locks")
    withWatchdog(seconds: 120, "locks") {
      runThreads(4) { me in
        var random = random.fork(me)
        let own = base + UInt64(me) * 64 * page
        _ = try! space.map(length: 32 * page, at: .fixed(own), protection: [.read, .write])
        for _ in 0..<400 {
          let start = own + random.below(24) * page
          let length = (1 + random.below(8)) * page
          do throws(Errno) {
            switch random.below(5) {
            case 0, 1:
              try space.lockMemory(at: start, length: length, onFault: random.below(2) == 0)
            case 2: try space.unlockMemory(at: start, length: length)
            case 3:
              _ = try space.map(
                length: length, at: .fixed(start), protection: [.read, .write],
                options: random.below(2) == 0 ? .locked : [])
            default:
              let at = try space.map(
                length: length, protection: [.read, .write], options: .locked)
              try space.unmap(at: at, length: length)
            }
          } catch {
            precondition(
              error == .noMemory || error == .resourceTemporarilyUnavailable, "\(error)")
          }
        }
      }
    }
    let locked = space.mappings().filter { $0.flags.contains(.locked) }
    #expect(space.usage.lockedPages == locked.reduce(0) { $0 + Int($1.range.length / page) })
    #expect(space.usage.lockedPages <= 40)
    space.checkInvariants()
  }

  /// Mappings that are made while all is locked are locked, before or after: none slips through.
  @Test(arguments: LockPolicy.allCases)
  func `no mapping slips between what is there and what will be`(_ policy: LockPolicy) throws {
    for _ in 0..<20 {
      let space = try makeSpace(policy)
      let held = try space.map(length: page, protection: .read)
      withWatchdog(seconds: 60, "lock all") {
        let one = TestThread {
          for i in 0..<40 as Range<UInt64> {
            _ = try! space.map(length: page, protection: i & 1 == 0 ? .read : .write)
          }
        }
        let two = TestThread {
          for i in 0..<40 as Range<UInt64> { try! mapPages(space, 2 * i, 1) }
        }
        try! space.lockAllMemory([.current, .future, .onFault])
        one.join()
        two.join()
      }
      #expect(space.mapping(at: held) != nil)
      #expect(space.mappings().allSatisfy { $0.flags.contains(.locked) })
      #expect(space.usage.lockedPages == space.usage.virtualPages)
    }
  }
}
