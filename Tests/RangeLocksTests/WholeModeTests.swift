// SPDX-License-Identifier: Apache-2.0
//
// Whole-lock mode: what it turns into when holds meet, and that switching loses nobody.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct WholeModeTests {
    private func isWhole(_ lock: RangeLock) -> Bool {
      lock.directory.header.pointee.word.load(ordering: .relaxed) != WholeWord.directory
    }

    @Test func `One hold at a time leaves the directory alone`() {
      let lock = makeLock()
      for index in 0..<1000 as Range<UInt64> {
        let hold = lock.lock(over: KeyRange(index...index << 40), index % 2 == 0 ? .read : .write)
        #expect(lock.holdCount == 1)
        hold.release()
      }
      #expect(isWhole(lock))
      #expect(lock.directory.isEmpty)
      #expect(lock.directory.header.pointee.levelsInUse.load(ordering: .relaxed) == 0)
    }

    @Test func `A second hold takes the first one into the directory, with its range and mode`() {
      let lock = makeLock()
      let first = lock.lock(over: KeyRange(10...19), .read)
      #expect(!lock.isFree(over: KeyRange(15...15), .write))
      #expect(!isWhole(lock))
      let reader = lock.tryLock(over: KeyRange(0...100), .read)
      let writer = lock.tryLock(over: KeyRange(101...), .write)
      #expect(lock.holdCount == 3)
      reader?.release()
      #expect(lock.isFree(over: KeyRange(0...9), .write))
      #expect(!lock.isFree(over: KeyRange(0...10), .write))
      first.release()
      #expect(lock.isFree(over: KeyRange(0...100), .write))
      writer?.release()
      #expect(lock.holdCount == 0)
    }

    @Test func `A switch does not wait for a holder that waits for the switcher`() {
      withWatchdog("disjoint acquirer") {
        let lock = makeLock()
        let first = lock.lock(over: KeyRange(0...9), .write)
        // If this waited for `first` it would never return.
        TestThread { lock.lock(over: KeyRange(10...19), .write).release() }.join()
        first.release()
      }
    }

    @Test func `A quiet spell of one thread enters the mode again, and short ones make it rarer`() {
      let lock = makeLock()
      func meet() {
        let first = lock.lock(over: KeyRange(0...9), .write)
        lock.lock(over: KeyRange(10...19), .write).release()
        first.release()
      }
      func requestsUntilWhole() -> Int {
        var count = 0
        while !isWhole(lock) {
          lock.lock(over: KeyRange(0...9), .read).release()
          count += 1
        }
        return count
      }
      meet()
      #expect(!isWhole(lock))
      let interval = Int(ModeSwitch.sampleInterval)
      let few = Int(ModeSwitch.fewestSamples) * interval
      #expect(requestsUntilWhole() <= few + interval)
      // The mode was entered a moment ago; a slow machine may have made it a worthwhile time.
      let needed = lock.directory.modeSwitch.pointee.samplesNeeded
      meet()
      let now = lock.directory.modeSwitch.pointee.samplesNeeded
      #expect(now == needed * 2 || now == ModeSwitch.fewestSamples)
      #expect(requestsUntilWhole() >= (Int(now) - 1) * interval)
      #expect(lock.holdCount == 0)
    }

    @Test func `A lock that does not use the mode never enters it`() {
      let lock = makeLock(.init(usesWholeLockMode: false))
      for _ in 0..<5000 { lock.lock(over: .all, .write).release() }
      #expect(!isWhole(lock))
    }

    @Test func `Two conflicting holds never share a key while modes switch all the time`() {
      let seeds = SeededRandom(for: "stress of mode switches")
      let before = testPool.blocksInUse
      withWatchdog(seconds: 120, "switching, SEED=\(seeds.seed)") {
        let lock = makeLock(.init(granuleShift: 2))
        let owners = OwnerWords(64)
        runThreads(4) { thread in
          var random = seeds.fork(thread)
          for _ in 0..<Int(20_000 * stressScale) {
            if random.chance(40) { _ = lock.directory.enterWhole() }
            let first = random.below(64)
            let last = min(63, first + random.below(random.chance(20) ? 64 : 3))
            let mode: LockMode = random.chance(50) ? .write : .read
            let range = KeyRange(first...last)
            let hold: RangeHold?
            switch random.below(4) {
            case 0: hold = lock.tryLock(over: range, mode)
            case 1:
              hold = lock.lock(
                over: range, mode, deadline: rl_monotonic_ns() + random.below(50_000))
            default: hold = lock.lock(over: range, mode)
            }
            guard var hold else { continue }
            let keys = Int(first)...Int(last)
            owners.enter(keys, mode, seed: seeds.seed)
            if random.chance(10) { rl_yield() }
            if mode == .write, random.chance(30) {
              owners.downgrade(keys)
              hold.downgrade()
              owners.leave(keys, .read)
            } else {
              owners.leave(keys, mode)
            }
            hold.release()
          }
        }
        #expect(owners.isQuiet)
        #expect(lock.holdCount == 0)
        #expect(lock.waiterCount == 0)
        let state = lock.directory.modeSwitch
        print("switches: \(state.pointee.entered) in, \(state.pointee.left) out")
        // How often depends on the machine: 8 times were seen on one processor that others used too.
        #expect(state.pointee.entered > 1)
      }
      #expect(testPool.blocksInUse == before)
    }
  }
}
