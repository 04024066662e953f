// SPDX-License-Identifier: Apache-2.0
//
// Several ranges in one request.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct GroupTests {
    private func pieces(_ requests: [RangeRequest]) -> [RangeRequest] {
      RangeRequest.withPieces(of: requests) { Array($0) }
    }

    @Test func `Pieces cover the same keys in the strongest mode, and touching ones are one`() {
      #expect(
        pieces([.init(KeyRange(10...19), .read), .init(KeyRange(0...9), .read)])
          == [.init(KeyRange(0...19), .read)])
      #expect(
        pieces([.init(.all, .read), .init(KeyRange(5...6), .write)])
          == [
            .init(KeyRange(0...4), .read), .init(KeyRange(5...6), .write),
            .init(KeyRange(7...), .read),
          ])
      #expect(
        pieces([.init(KeyRange(UInt64.max...), .write), .init(KeyRange(9...), .upgradeableRead)])
          == [
            .init(KeyRange(9...UInt64.max - 1), .upgradeableRead),
            .init(KeyRange(UInt64.max...), .write),
          ])
      var random = SeededRandom(for: "pieces")
      for _ in 0..<2000 {
        let requests = (0..<random.below(7) + 1).map { _ in
          let first = random.below(20)
          let mode: [LockMode] = [.read, .upgradeableRead, .write]
          return RangeRequest(
            KeyRange(first...first + random.below(8)), mode[Int(random.below(3))])
        }
        let result = pieces(requests)
        for (a, b) in zip(result, result.dropFirst()) {
          #expect(a.range.last < b.range.first)
          #expect(a.range.last + 1 < b.range.first || a.mode != b.mode)
        }
        for key in 0..<30 as Range<UInt64> {
          let wanted = requests.filter { $0.range.contains(key) }.map(\.mode.rawValue).max()
          let got = result.filter { $0.range.contains(key) }.map(\.mode.rawValue)
          #expect(got == (wanted.map { [$0] } ?? []), "SEED=\(random.seed)")
        }
      }
    }

    @Test(arguments: [true, false])
    func `A group holds all its ranges and a try takes all or none`(_ whole: Bool) {
      let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: whole))
      let requests = [
        RangeRequest(KeyRange(40...90), .write), .init(KeyRange(3...5), .read),
        .init(KeyRange((UInt64.max - 9)...), .write), .init(KeyRange(1 << 20...1 << 30), .read),
      ]
      let hold = lock.lock(overAll: requests)
      #expect(hold.ranges.count == 4)
      #expect(lock.holdCount == 4)
      #expect(!lock.isFree(over: KeyRange(90...90), .read))
      #expect(lock.isFree(over: KeyRange(91...91), .write))
      #expect(lock.isFree(over: KeyRange(4...4), .read))
      #expect(!lock.isFree(over: KeyRange(4...4), .write))
      #expect(!lock.isFree(over: KeyRange(UInt64.max...), .read))
      let second = lock.tryLock(overAll: [
        .init(KeyRange(200...300), .write), .init(KeyRange(5...6), .write),
      ])
      #expect(second == nil ? true : false)
      #expect(lock.holdCount == 4)
      let third = lock.tryLock(overAll: [
        .init(KeyRange(200...300), .write), .init(KeyRange(5...6), .read),
      ])
      let granted = third != nil
      #expect(granted)
      hold.release()
      third?.release()
      #expect(lock.holdCount == 0)
    }

    @Test func `A group takes one place in the queue, and gives it up whole`() {
      withWatchdog("group in the queue") {
        let lock = makeLock(.init(granuleShift: 4))
        let held = Held(lock.lock(over: KeyRange(0...9), .write))
        let journal = Journal()
        let group = TestThread {
          let hold = lock.lock(overAll: [
            .init(KeyRange(5...5), .write), .init(KeyRange(1000...1000), .write),
          ])
          journal.note("group")
          hold.release()
        }
        // Both ranges wait, although nobody holds the other.
        waitUntil { lock.waiterCount == 2 }
        #expect(lock.holdCount == 1)
        #expect(!lock.isFree(over: KeyRange(1000...1000), .read))
        let expired =
          lock.lock(
            overAll: [.init(KeyRange(7...7), .read), .init(KeyRange(2000...2000), .write)],
            deadline: 1) == nil
        #expect(expired)
        #expect(lock.isFree(over: KeyRange(2000...2000), .write))
        #expect(journal.all.isEmpty)
        held.release()
        group.join()
        #expect(lock.holdCount == 0)
      }
    }

    @Test(arguments: [true, false])
    func
      `An upgrade goes in front of a group that waits, whichever of its ranges nobody else wants`(
        _ whole: Bool
      )
    {
      withWatchdog("upgrade before a group") {
        let lock = makeLock(.init(granuleShift: 4, usesWholeLockMode: whole))
        let journal = Journal()
        var hold = lock.lock(over: KeyRange(0...99), .upgradeableRead)
        let group = TestThread {
          let both = lock.lock(overAll: [
            .init(KeyRange(20...20), .read), .init(KeyRange(90...95), .write),
          ])
          journal.note("group")
          both.release()
        }
        waitUntil { lock.waiterCount == 2 }
        // Nothing is held in part, so there is nobody to wait for.
        hold.upgrade()
        journal.note("upgrade")
        #expect(!lock.isFree(over: KeyRange(20...20), .read))
        hold.release()
        group.join()
        #expect(journal.all == ["upgrade", "group"])
        #expect(lock.holdCount == 0)
      }
    }

    @Test func `A group looks again at a range that an upgrade has come to stand in front of`() {
      withWatchdog("group looks again") {
        let lock = makeLock(.init(granuleShift: 4))
        let journal = Journal()
        let low = Held(lock.lock(over: KeyRange(0...9), .write))
        let high = Held(lock.lock(over: KeyRange(100...109), .write))
        let group = TestThread {
          let both = lock.lock(overAll: [
            .init(KeyRange(5...5), .read), .init(KeyRange(100...100), .write),
          ])
          journal.note("group")
          both.release()
        }
        waitUntil { lock.waiterCount == 2 }
        // Now it waits for the other range only.
        low.release()
        var hold = lock.lock(over: KeyRange(0...9), .upgradeableRead)
        hold.upgrade()
        high.release()
        // It was not granted in this thread's release: the writer is in front.
        #expect(lock.waiterCount == 2 && lock.holdCount == 1)
        journal.note("upgrade")
        hold.release()
        group.join()
        #expect(journal.all == ["upgrade", "group"])
      }
    }

    @Test func `Many ranges need more than one block`() {
      let lock = makeLock(.init(granuleShift: 4))
      let requests = (0..<100 as Range<UInt64>).map {
        RangeRequest(KeyRange($0 * 40...$0 * 40 + ($0 % 2 == 0 ? 30 : 3)), .write)
      }
      let before = testPool.blocksInUse
      let hold = lock.lock(overAll: requests.reversed())
      #expect(lock.holdCount == 100)
      #expect(hold.ranges == requests)
      hold.release()
      #expect(testPool.blocksInUse == before)
      #expect(lock.isFree(over: .all, .write))
    }

    @Test func `Groups whose ranges cross neither deadlock nor share a key`() {
      let seeds = SeededRandom(for: "stress of groups")
      let before = testPool.blocksInUse
      withWatchdog(seconds: 120, "groups, SEED=\(seeds.seed)") {
        let lock = makeLock(.init(granuleShift: 2))
        let owners = OwnerWords(256)
        runThreads(4) { thread in
          var random = seeds.fork(thread)
          for _ in 0..<Int(4000 * stressScale) {
            let requests = (0..<1 + random.below(5)).map { _ in
              let first = random.below(256)
              let size = random.chance(10) ? 200 : random.below(6)
              return RangeRequest(
                KeyRange(first...min(255, first + size)), random.chance(50) ? .read : .write)
            }
            let hold: RangeSetHold?
            switch random.below(5) {
            case 0: hold = lock.tryLock(overAll: requests)
            case 1:
              hold = lock.lock(
                overAll: requests, deadline: rl_monotonic_ns() + random.below(100_000))
            case 2:
              // A single range among the groups.
              let single = lock.lock(over: requests[0].range, requests[0].mode)
              let keys = Int(single.range.first)...Int(single.range.last)
              owners.enter(keys, single.mode, seed: seeds.seed)
              owners.leave(keys, single.mode)
              single.release()
              continue
            case 3:
              // Becomes a writer in front of groups that wait for it.
              var single = lock.lock(over: requests[0].range, .upgradeableRead)
              let keys = Int(single.range.first)...Int(single.range.last)
              owners.enter(keys, .read, seed: seeds.seed)
              owners.leave(keys, .read)
              if random.chance(30) {
                _ = single.upgrade(deadline: rl_monotonic_ns() + random.below(20_000))
              } else {
                single.upgrade()
              }
              owners.enter(keys, single.mode == .write ? .write : .read, seed: seeds.seed)
              owners.leave(keys, single.mode == .write ? .write : .read)
              single.release()
              continue
            default: hold = lock.lock(overAll: requests)
            }
            guard let hold else { continue }
            let ranges = hold.ranges
            for piece in ranges {
              owners.enter(
                Int(piece.range.first)...Int(piece.range.last), piece.mode, seed: seeds.seed)
            }
            if random.chance(5) { rl_yield() }
            for piece in ranges {
              owners.leave(Int(piece.range.first)...Int(piece.range.last), piece.mode)
            }
            hold.release()
          }
        }
        #expect(owners.isQuiet)
        #expect(lock.holdCount == 0)
        #expect(lock.waiterCount == 0)
      }
      #expect(testPool.blocksInUse == before)
    }
  }
}
