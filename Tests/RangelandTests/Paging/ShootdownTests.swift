// SPDX-License-Identifier: Apache-2.0
//
// Acceptance row P4: when protect or unmap has returned, no thread uses the old right or page.

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

@Suite(.serialized) struct ShootdownTests {
  private static let address: Address = 0x7f12_3456_7000

  @Test(arguments: [1, 2])
  func `no write succeeds after protect has returned`(writers: Int) {
    let world = PagingWorld()
    let rounds = 3_000
    let isWritable = Atomic<Bool>(true)
    let isDone = Atomic<Bool>(false)
    let late = Atomic<Int>(0)
    let writes = Atomic<Int>(0)
    world.touch(Self.address)
    nonisolated(unsafe) let word = world.hostWord(
      world.tables.lookup(Self.address, world.context).frame)
    withWatchdog(seconds: 240, "protect against writers") {
      runThreads(writers + 1) { me in
        if me > 0 {
          var count = UInt64(me) << 32
          while !isDone.load(ordering: .acquiring) {
            count += 1
            if world.accessor.tryStore(Self.address, count) {
              if writes.add(1, ordering: .relaxed).newValue % 32 == 0 { rl_yield() }
            } else if let leaf = world.tables.latchLeaf(
              Self.address, creating: false, world.context)
            {
              // The fault handler: what the layout allows is decided under the latch.
              if isWritable.load(ordering: .relaxed) { leaf.grant(.write, at: Self.address) }
              leaf.unlockLeaf()
              rl_yield()
            }
          }
          return
        }
        for _ in 0..<rounds {
          let before = writes.load(ordering: .relaxed)
          while writes.load(ordering: .relaxed) == before { rl_yield() }
          isWritable.store(false, ordering: .relaxed)
          world.protect(page(Self.address), .read)
          let seen = word.pointee.load(ordering: .relaxed)
          for _ in 0..<20 {
            rl_cpu_relax()
            if word.pointee.load(ordering: .relaxed) != seen { late.add(1, ordering: .relaxed) }
          }
          isWritable.store(true, ordering: .relaxed)
        }
        isDone.store(true, ordering: .releasing)
      }
    }
    #expect(late.load(ordering: .relaxed) == 0)
  }

  @Test func `no access reaches a page after unmap has returned and the page is reused`() {
    let world = PagingWorld()
    let rounds = 3_000
    let poison: UInt64 = 0xdead_dead_dead_dead
    let isDone = Atomic<Bool>(false)
    let bad = Atomic<Int>(0)
    let hits = Atomic<Int>(0)
    withWatchdog(seconds: 240, "unmap against readers and writers") {
      runThreads(3) { me in
        if me > 0 {
          var word: UInt64 = 0
          var turns = 0
          while !isDone.load(ordering: .acquiring) {
            turns += 1
            if turns % 32 == 0 { rl_yield() }
            if me == 1 {
              if world.accessor.tryLoad(Self.address, into: &word) {
                if word == poison { bad.add(1, ordering: .relaxed) }
                hits.add(1, ordering: .relaxed)
              }
            } else if world.accessor.tryStore(Self.address, UInt64(1)) {
              hits.add(1, ordering: .relaxed)
            }
          }
          return
        }
        for _ in 0..<rounds {
          let before = hits.load(ordering: .relaxed)
          world.touch(Self.address)
          while hits.load(ordering: .relaxed) == before { rl_yield() }
          world.zap(page(Self.address))
          // The frame that was freed last: a plain write to it would race with a late access, which the
          // thread sanitizer sees as well.
          let frame = world.arena.allocate(zeroed: false, world.context)!
          let bytes = world.arena.pointee.bytes(of: frame)
          bytes.storeBytes(of: poison, as: UInt64.self)
          for _ in 0..<20 {
            rl_cpu_relax()
            if bytes.load(as: UInt64.self) != poison { bad.add(1, ordering: .relaxed) }
          }
          world.arena.release(frame, world.context)
        }
        isDone.store(true, ordering: .releasing)
      }
    }
    #expect(bad.load(ordering: .relaxed) == 0)
    #expect(world.memory.framesInUse == 0)
  }

  @Test func `a page replaced by a copy is never read again after the copy was read`() {
    let world = PagingWorld()
    let rounds = 3_000
    let isDone = Atomic<Bool>(false)
    let bad = Atomic<Int>(0)
    let newest = Atomic<UInt64>(0)
    world.touch(Self.address, rights: .read)
    withWatchdog(seconds: 240, "copy on write against readers") {
      runThreads(3) { me in
        if me > 0 {
          var word: UInt64 = 0
          var turns = 0
          while !isDone.load(ordering: .acquiring) {
            let atLeast = newest.load(ordering: .sequentiallyConsistent)
            turns += 1
            if turns % 32 == 0 { rl_yield() }
            guard world.accessor.tryLoad(Self.address, into: &word) else { continue }
            if word < atLeast { bad.add(1, ordering: .relaxed) }
            newest.max(word, ordering: .sequentiallyConsistent)
          }
          return
        }
        for round in 1...rounds {
          let frame = world.arena.allocate(zeroed: true, world.context)!
          world.arena.pointee.bytes(of: frame).storeBytes(of: UInt64(round), as: UInt64.self)
          var drops = world.drops()
          let leaf = world.tables.latchLeaf(Self.address, creating: false, world.context)!
          world.tables.replace(
            PageTableEntry(frame: frame, rights: .read, kind: .anonymous), at: Self.address,
            in: leaf, &drops)
          leaf.unlockLeaf()
          drops.release()
          // Every value is seen by somebody, so that the readers have it cached.
          while newest.load(ordering: .sequentiallyConsistent) < UInt64(round) { rl_yield() }
        }
        isDone.store(true, ordering: .releasing)
      }
    }
    #expect(bad.load(ordering: .relaxed) == 0)
    #expect(world.memory.framesInUse == 1)
  }

  @Test func `protection that flips back and forth under a reader lets every read through`() {
    let world = PagingWorld()
    let isDone = Atomic<Bool>(false)
    let bad = Atomic<Int>(0)
    let reads = Atomic<Int>(0)
    world.touch(Self.address, word: 42)
    withWatchdog(seconds: 240, "flips under a reader") {
      runThreads(2) { me in
        if me == 1 {
          var word: UInt64 = 0
          while !isDone.load(ordering: .acquiring) {
            let isRead = world.accessor.tryLoad(Self.address, into: &word)
            if !isRead || word != 42 { bad.add(1, ordering: .relaxed) }
            reads.add(1, ordering: .relaxed)
          }
          return
        }
        for _ in 0..<20_000 {
          world.protect(page(Self.address), .read)
          world.grant(.write, Self.address)
        }
        while reads.load(ordering: .relaxed) == 0 { rl_yield() }
        isDone.store(true, ordering: .releasing)
      }
    }
    #expect(bad.load(ordering: .relaxed) == 0)
  }

  @Test func `copy on write installs the copy only when nobody is reading the old page`() {
    let world = PagingWorld()
    world.touch(Self.address, rights: .read)
    let isReplaced = Atomic<Bool>(false)
    let early = Atomic<Int>(0)
    withWatchdog("a copy against an open section") {
      let turn = Barrier(2)
      runThreads(2) { me in
        if me == 0 {
          let accessor = world.accessor
          let old = world.tables.lookup(Self.address, world.context).frame
          accessor.beginSection()
          let host = accessor.translate(Self.address, forWriting: false)
          precondition(host == world.arena.pointee.bytes(of: old))
          turn.wait()
          // The old translation is taken away first; then the other thread waits for us.
          while world.tables.lookup(Self.address, world.context).frame == old { rl_yield() }
          for _ in 0..<1_000 {
            rl_yield()
            if !world.tables.lookup(Self.address, world.context).isEmpty {
              early.add(1, ordering: .relaxed)
            }
          }
          if isReplaced.load(ordering: .acquiring) { early.add(1, ordering: .relaxed) }
          accessor.endSection()
          return
        }
        turn.wait()
        let frame = world.arena.allocate(zeroed: true, world.context)!
        var drops = world.drops()
        let leaf = world.tables.latchLeaf(Self.address, creating: false, world.context)!
        world.tables.replace(
          PageTableEntry(frame: frame, rights: .read, kind: .anonymous), at: Self.address,
          in: leaf, &drops)
        isReplaced.store(true, ordering: .releasing)
        leaf.unlockLeaf()
        drops.release()
      }
    }
    let isDone = isReplaced.load(ordering: .relaxed)
    #expect(isDone && early.load(ordering: .relaxed) == 0)
    #expect(world.memory.framesInUse == 1)
  }

  @Test func `unmap returns after the section that uses the page has ended, and not before`() {
    let world = PagingWorld()
    world.touch(Self.address)
    let hasReturned = Atomic<Bool>(false)
    let early = Atomic<Int>(0)
    withWatchdog("an unmap against an open section") {
      let turn = Barrier(2)
      runThreads(2) { me in
        if me == 0 {
          let accessor = world.accessor
          accessor.beginSection()
          _ = accessor.translate(Self.address, forWriting: true)
          turn.wait()
          while !world.tables.lookup(Self.address, world.context).isEmpty { rl_yield() }
          for _ in 0..<1_000 {
            rl_yield()
            if hasReturned.load(ordering: .acquiring) { early.add(1, ordering: .relaxed) }
          }
          // The page is still ours.
          if world.memory.framesInUse != 1 { early.add(1, ordering: .relaxed) }
          accessor.endSection()
          return
        }
        turn.wait()
        world.zap(page(Self.address))
        hasReturned.store(true, ordering: .releasing)
      }
    }
    let isDone = hasReturned.load(ordering: .relaxed)
    #expect(isDone && early.load(ordering: .relaxed) == 0)
    #expect(world.memory.framesInUse == 0)
  }
}
