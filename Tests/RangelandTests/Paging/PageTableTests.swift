// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

@Suite struct PageTableTests {
  /// Pages in several tables, on both sides of table borders, and at both ends of the space.
  private static let bases: [Address] = [
    0, 0x1f_f000, 0x3fff_e000, 0x40_0000_0000 - 0x3000, 0x7f_ffff_e000, 0x5555_5555_0000,
    Address.spaceEnd - 0x8000,
  ]

  private static func address(_ random: inout SeededRandom) -> Address {
    let base = bases[Int(random.below(UInt64(bases.count)))]
    return min(base + random.below(8) << 12, Address.spaceEnd - 4096)
  }

  @Test func `tables agree with a dictionary under random operations`() {
    let world = PagingWorld()
    var random = SeededRandom(for: "page table model")
    var model: [Address: PageTableEntry] = [:]
    for step in 0..<20_000 {
      let a = Self.address(&random)
      let b = Self.address(&random)
      let range = AddressRange(start: min(a, b), end: max(a, b) + 4096)
      switch random.below(10) {
      case 0...4:
        let rights = PageRights(rawValue: UInt8(random.below(8)))
        let frame = world.arena.allocate(zeroed: false, world.context)!
        let entry = PageTableEntry(frame: frame, rights: rights, kind: .anonymous)
        let leaf = world.tables.latchLeaf(a, creating: true, world.context)!
        let isNew = leaf.install(entry, at: a)
        leaf.unlockLeaf()
        #expect(isNew == (model[a] == nil))
        if isNew { model[a] = entry } else { world.arena.release(frame, world.context) }
      case 5:
        let expected = model.keys.filter { range.contains($0) }.count
        let isFreeing = random.chance(70)
        #expect(world.zap(range, freeingTables: isFreeing) == expected, "step \(step)")
        for key in model.keys where range.contains(key) { model[key] = nil }
      case 6:
        let allowed = PageRights(rawValue: UInt8(random.below(8)))
        world.protect(range, allowed)
        for (key, value) in model where range.contains(key) {
          model[key] = PageTableEntry(
            frame: value.frame, rights: value.rights.intersection(allowed), kind: .anonymous)
        }
      case 7:
        world.grant(.write, a)
        if let old = model[a] {
          model[a] = PageTableEntry(
            frame: old.frame, rights: old.rights.union(.write), kind: .anonymous)
        }
      case 8:
        guard let leaf = world.tables.latchLeaf(a, creating: false, world.context) else {
          #expect(model[a] == nil)
          continue
        }
        let old = leaf.extract(a)
        leaf.unlockLeaf()
        #expect(old == model[a] ?? .empty)
        if !old.isEmpty { world.arena.release(old.frame, world.context) }
        model[a] = nil
      default:
        #expect(world.tables.lookup(a, world.context) == model[a] ?? .empty)
      }
      if step % 500 == 0 {
        var seen: [Address: PageTableEntry] = [:]
        var last: Address?
        world.tables.forEachEntry(in: .wholeSpace, world.context) { address, entry in
          #expect(last.map { $0 < address } ?? true)
          last = address
          seen[address] = entry
        }
        #expect(seen == model, "step \(step)")
        #expect(world.memory.framesInUse == model.count)
      }
    }
    world.zap(.wholeSpace)
    #expect(world.tables.tableCount(world.context) <= 4, "the root, and what the thread keeps")
    #expect(world.memory.framesInUse == 0)
  }

  @Test func `a zap larger than a drop list returns every frame`() {
    let world = PagingWorld(frames: 5000)
    let start: Address = 0x1000_0000 - 0x5000
    for i in 0..<4500 { #expect(world.touch(start + UInt64(i) << 12)) }
    #expect(world.zap(AddressRange(start: start, end: start + 4500 << 12)) == 4500)
    #expect(world.memory.framesInUse == 0)
    #expect(world.tables.tableCount(world.context) == 1)
  }

  @Test func `freeing is left out when it is not asked for and done at the next unmap`() {
    let world = PagingWorld()
    world.touch(0x1000)
    world.zap(page(0x1000), freeingTables: false)
    #expect(world.tables.tableCount(world.context) == 4)
    world.zap(AddressRange(start: 0x20_0000, end: 0x40_0000))
    #expect(world.tables.tableCount(world.context) == 4, "another leaf's range")
    world.zap(page(0x3000))
    #expect(world.tables.tableCount(world.context) == 1)
  }

  @Test func `a thread keeps the leaf that it has emptied last, and no other`() {
    let world = PagingWorld()
    // A thread that has no accessor keeps none.
    world.touch(0x1000)
    world.zap(page(0x1000))
    #expect(world.tables.tableCount(world.context) == 1)
    _ = world.accessor
    world.touch(0x1000)
    let leaf = world.tables.leaf(0x1000)
    for _ in 0..<3 {
      world.zap(page(0x1000))
      #expect(world.tables.tableCount(world.context) == 4)
      world.touch(0x2000)
      #expect(world.tables.leaf(0x1000) == leaf, "the same one again")
      world.zap(page(0x2000))
      world.zap(page(0x5000))
      world.touch(0x1000)
      #expect(world.tables.leaf(0x1000) == leaf, "an unmap of nothing leaves it")
    }
    world.zap(page(0x1000))
    // Another one, far away, with tables of its own.
    world.touch(0x7000_0000_0000)
    #expect(world.tables.tableCount(world.context) == 7)
    world.zap(page(0x7000_0000_0000))
    #expect(world.tables.tableCount(world.context) == 4)
    #expect(world.tables.leaf(0x1000) == nil)
    // It is used again when another one is emptied, and goes when that is emptied.
    world.touch(0x7000_0000_0000)
    world.touch(0x1000)
    world.zap(page(0x1000))
    #expect(world.tables.tableCount(world.context) == 7)
    #expect(world.tables.lookup(0x7000_0000_0000, world.context).isPresent)
    world.zap(page(0x7000_0000_0000))
    #expect(world.tables.tableCount(world.context) == 4)
    world.zap(.wholeSpace)
    #expect(world.tables.tableCount(world.context) <= 4)
    #expect(world.memory.framesInUse == 0)
  }

  @Test func `the zero page is neither counted nor freed`() {
    let world = PagingWorld()
    let leaf = world.tables.latchLeaf(0x5000, creating: true, world.context)!
    #expect(leaf.install(.zeroPage(rights: [.read, .write]), at: 0x5000))
    leaf.unlockLeaf()
    var word: UInt64 = 1
    let isRead = world.accessor.tryLoad(0x5008, into: &word)
    #expect(isRead && word == 0)
    #expect(!world.accessor.tryStore(0x5008, UInt64(1)))
    #expect(world.zap(page(0x5000)) == 0)
    #expect(world.memory.framesInUse == 0)
  }

  /// Threads map and unmap their own page, so that tables are freed while others install.
  private func race(rounds: Int, threads: Int, _ address: @escaping @Sendable (Int) -> Address) {
    let world = PagingWorld()
    let lost = Atomic<Int>(0)
    withWatchdog(seconds: 240, "tables freed under racing installs") {
      runThreads(threads) { me in
        let mine = address(me)
        for _ in 0..<rounds {
          if !world.touch(mine, word: UInt64(me)) { lost.add(1, ordering: .relaxed) }
          let entry = world.tables.lookup(mine, world.context)
          let isMine =
            entry.isPresent
            && world.hostWord(entry.frame).pointee.load(ordering: .relaxed) == UInt64(me)
          if !isMine { lost.add(1, ordering: .relaxed) }
          if world.zap(page(mine)) != 1 { lost.add(1, ordering: .relaxed) }
        }
      }
    }
    #expect(lost.load(ordering: .relaxed) == 0)
    #expect(world.memory.framesInUse == 0)
    #expect(world.tables.tableCount(world.context) == 1)
  }

  @Test func `a page installed while its table is being freed is not lost`() {
    race(rounds: 50_000, threads: 2) { 0x7000_0000 + UInt64($0) << 12 }
  }

  @Test func `a table created while the table above is being freed is not lost`() {
    race(rounds: 10_000, threads: 4) { 0x7000_0000 + UInt64($0 & 1) << 21 + UInt64($0) << 12 }
    race(rounds: 10_000, threads: 2) { UInt64($0) << 30 }
  }

  @Test func `threads that first touch one page allocate exactly one frame`() {
    let world = PagingWorld()
    let rounds = 2_000
    let winners = Atomic<Int>(0)
    let wrong = Atomic<Int>(0)
    withWatchdog(seconds: 120, "F-2") {
      let turn = Barrier(4)
      runThreads(4) { me in
        for round in 0..<rounds {
          let address = UInt64(round) << 12
          turn.wait()
          if world.touch(address) { winners.add(1, ordering: .relaxed) }
          turn.wait()
          if me == 0, world.memory.framesInUse != round + 1 { wrong.add(1, ordering: .relaxed) }
        }
      }
    }
    #expect(winners.load(ordering: .relaxed) == rounds)
    #expect(wrong.load(ordering: .relaxed) == 0)
    #expect(world.memory.framesInUse == rounds)
  }
}
