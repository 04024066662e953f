// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

@Suite struct FrameArenaTests {
  @Test(arguments: [1, 2, 63, 64, 65, 128, 129, 1000])
  func `every frame up to the limit can be allocated and no more`(limit: Int) throws {
    let memory = try PhysicalMemory(frameLimit: limit)
    let context = memory.reclaimer.context()
    var seen = Set<FrameNumber>()
    for _ in 0..<limit {
      let frame = try #require(memory.arena.allocate(zeroed: false, context))
      #expect(frame > 0 && seen.insert(frame).inserted)
    }
    #expect(memory.framesInUse == limit)
    #expect(memory.arena.allocate(zeroed: false, context) == nil)
    memory.arena.release(seen.first!, context)
    #expect(memory.arena.allocate(zeroed: false, context) == seen.first!)
    for frame in seen { memory.arena.release(frame, context) }
    #expect(memory.framesInUse == 0)
    // Again, from lists and caches this time.
    for _ in 0..<limit { #expect(memory.arena.allocate(zeroed: false, context) != nil) }
    #expect(memory.arena.allocate(zeroed: false, context) == nil)
  }

  @Test func `frames in the caches of other threads are recalled at the limit`() throws {
    let memory = try PhysicalMemory(frameLimit: 500)
    withWatchdog("frames freed by other threads") {
      let turn = Barrier(4)
      runThreads(4) { _ in
        let context = memory.reclaimer.context()
        var mine: [FrameNumber] = []
        for _ in 0..<100 { mine.append(memory.arena.allocate(zeroed: false, context)!) }
        turn.wait()
        for frame in mine { memory.arena.release(frame, context) }
        turn.wait()
      }
    }
    let context = memory.reclaimer.context()
    for i in 0..<500 {
      #expect(memory.arena.allocate(zeroed: false, context) != nil, "frame \(i)")
    }
    #expect(memory.arena.allocate(zeroed: false, context) == nil)
  }

  @Test func `frames allocated by one thread and freed by another come back`() throws {
    let memory = try PhysicalMemory(frameLimit: 256)
    let boxes = UnsafeMutablePointer<FrameNumber>.allocate(capacity: 256)
    defer { boxes.deallocate() }
    nonisolated(unsafe) let box = boxes
    withWatchdog("two threads passing frames") {
      let turn = Barrier(2)
      runThreads(2) { me in
        let context = memory.reclaimer.context()
        for _ in 0..<200 {
          if me == 0 {
            for i in 0..<256 { box[i] = memory.arena.allocate(zeroed: false, context)! }
          }
          turn.wait()
          if me == 1 { for i in 0..<256 { memory.arena.release(box[i], context) } }
          turn.wait()
        }
      }
    }
    #expect(memory.framesInUse == 0)
  }

  @Test func `threads that together fit the limit are never refused and never share a frame`()
    throws
  {
    let threads = 4
    let each = 150
    let memory = try PhysicalMemory(frameLimit: threads * each)
    let random = SeededRandom(for: "frame churn")
    let failures = Atomic<Int>(0)
    withWatchdog(seconds: 120, "frame churn") {
      runThreads(threads) { me in
        var random = random.fork(me)
        let context = memory.reclaimer.context()
        var mine: [FrameNumber] = []
        for step in 0..<20_000 {
          if mine.count < each, mine.isEmpty || random.chance(52) {
            guard let frame = memory.arena.allocate(zeroed: false, context) else {
              failures.add(1, ordering: .relaxed)
              continue
            }
            memory.arena.pointee.bytes(of: frame).storeBytes(of: me, as: Int.self)
            mine.append(frame)
          } else {
            mine.swapAt(mine.count - 1, Int(random.below(UInt64(mine.count))))
            let frame = mine.removeLast()
            let owner = memory.arena.pointee.bytes(of: frame).load(as: Int.self)
            if owner != me { failures.add(1, ordering: .relaxed) }
            memory.arena.release(frame, context)
          }
          if step % 5000 == 4999 {
            for frame in mine { memory.arena.release(frame, context) }
            mine.removeAll()
          }
        }
        for frame in mine { memory.arena.release(frame, context) }
      }
    }
    #expect(failures.load(ordering: .relaxed) == 0)
    #expect(memory.framesInUse == 0)
  }

  @Test(arguments: [1, 64, 128, 129, 1000, 3000])
  func `frames of ascending pages are given out ascending again`(count: Int) throws {
    let world = PagingWorld()
    let base: Address = 0x4000_0000
    let range = AddressRange(start: base, end: base + UInt64(count) * Address.pageSize)
    func frames() -> [FrameNumber] {
      (0..<UInt64(count)).map {
        world.tables.lookup(base + $0 * Address.pageSize, world.context).frame
      }
    }
    func touchAll() { for i in 0..<UInt64(count) { world.touch(base + i * Address.pageSize) } }
    touchAll()
    let first = frames()
    #expect(first == first.sorted(), "never used before")
    for round in 1...3 {
      world.zap(range)
      touchAll()
      let again = frames()
      let descents = zip(again, again.dropFirst()).count { $0 > $1 }
      // A drop list of 1,024 entries, and the thread's cache of 128, may each begin anew.
      #expect(descents <= count / 64, "round \(round): \(descents) steps down")
    }
  }

  @Test func `a frame that was used is handed out zeroed`() throws {
    let memory = try PhysicalMemory(frameLimit: 1)
    let context = memory.reclaimer.context()
    for _ in 0..<3 {
      let frame = try #require(memory.arena.allocate(zeroed: true, context))
      let bytes = UnsafeMutableRawBufferPointer(
        start: memory.arena.pointee.bytes(of: frame), count: 4096)
      #expect(bytes.allSatisfy { $0 == 0 })
      for i in 0..<4096 { bytes[i] = 0xa5 }
      memory.arena.release(frame, context)
    }
  }

  @Test func `a frame lives as long as its last reference or pin`() throws {
    let memory = try PhysicalMemory(frameLimit: 1)
    let arena = memory.arena
    let context = memory.reclaimer.context()
    let frame = try #require(arena.allocate(zeroed: true, context))
    arena.retain(frame)
    arena.pin(frame)
    #expect(arena.references(frame) == 3 && arena.isPinned(frame))
    arena.release(frame, context)
    arena.release(frame, context)
    #expect(memory.framesInUse == 1, "the pin keeps it")
    #expect(arena.allocate(zeroed: true, context) == nil)
    arena.pin(frame)
    arena.unpin(frame, context)
    #expect(memory.framesInUse == 1, "the first pin keeps it")
    arena.unpin(frame, context)
    #expect(memory.framesInUse == 0)
    #expect(arena.allocate(zeroed: true, context) == frame)
    #expect(arena.pointee.metadata[Int(frame)].flags.load(ordering: .relaxed) == 0)
    #expect(!arena.isPinned(frame))
  }
}
