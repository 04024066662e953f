// SPDX-License-Identifier: Apache-2.0
//
// Blocks that the system does not give: a request waits for memory or gives up, and never traps or leaks.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

#if RANGELAND_CHECKS
  extension LockTests {
    @Suite struct MemoryTests {
      static let range = KeyRange(3...9)

      @Test func `A try without memory fails and changes nothing`() {
        let lock = makeLock(.init(usesWholeLockMode: false))
        NodePool.refuseTakes(after: 0, count: 1 << 30)
        let isFree = lock.isFree(over: Self.range, .write)
        NodePool.refuseTakes(after: 0, count: 0)
        #expect(!isFree)
        #expect(lock.isFree(over: Self.range, .write))
        #expect(lock.holdCount == 0)
      }

      @Test func `A blocking request waits for memory`() {
        withWatchdog("no memory for a request") {
          let lock = makeLock(.init(usesWholeLockMode: false))
          NodePool.refuseTakes(after: 0, count: 50)
          lock.withWriteLock(over: Self.range) {}
          NodePool.refuseTakes(after: 0, count: 0)
          #expect(lock.holdCount == 0)
        }
      }

      @Test func `A request without memory gives up at its deadline`() {
        withWatchdog("no memory until the deadline") {
          let lock = makeLock(.init(usesWholeLockMode: false))
          NodePool.refuseTakes(after: 0, count: 1 << 30)
          let isGranted =
            lock.lock(over: Self.range, .write, deadline: rl_monotonic_ns() + 1_000_000) != nil
          NodePool.refuseTakes(after: 0, count: 0)
          #expect(!isGranted)
          #expect(lock.holdCount == 0 && lock.waiterCount == 0)
        }
      }

      @Test(arguments: [true, false])
      func `Threads whose takes fail at random share no key, and no block is lost`(_ whole: Bool) {
        let random = SeededRandom(for: "takes that fail")
        #if RANGELAND_TSAN
          let rounds = 500
        #else
          let rounds = 5000
        #endif
        let before = testPool.blocksInUse
        do {
          let lock = makeLock(.init(granuleShift: 3, usesWholeLockMode: whole))
          let words = OwnerWords(64)
          withWatchdog("takes that fail") {
            let threads = (0..<4).map { number in
              TestThread {
                var random = random.fork(number)
                for _ in 0..<rounds {
                  NodePool.refuseTakes(
                    after: Int(random.below(4)), count: Int(random.below(6)))
                  let first = Int(random.below(64))
                  let keys = first...min(63, first + Int(random.below(24)))
                  let mode: LockMode = random.chance(50) ? .read : .write
                  let range = KeyRange(UInt64(keys.lowerBound)...UInt64(keys.upperBound))
                  let deadline = random.chance(30) ? rl_monotonic_ns() + 20_000 : UInt64.max
                  guard let hold = lock.lock(over: range, mode, deadline: deadline) else {
                    continue
                  }
                  words.enter(keys, mode, seed: random.seed)
                  words.leave(keys, mode)
                  hold.release()
                }
                NodePool.refuseTakes(after: 0, count: 0)
              }
            }
            for thread in threads { thread.join() }
          }
          #expect(words.isQuiet)
          #expect(lock.holdCount == 0 && lock.waiterCount == 0)
        }
        #expect(testPool.blocksInUse == before)
      }
    }
  }
#endif
