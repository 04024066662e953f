// SPDX-License-Identifier: Apache-2.0
//
// Random requests from more threads than cores, judged inside the critical sections: every key has a word that
// says who is there.

import CRangeland
import Foundation
import RangelandTestSupport
import Synchronization
import Testing

@testable import RangeLocks

/// A word per key: a writer's mark, or the number of readers.
final class OwnerWords: @unchecked Sendable {
  // Sendable: the pointer is immutable, the words are atomic.
  private let words: UnsafeMutablePointer<Atomic<UInt32>>
  /// Plain memory beside the words, so that ThreadSanitizer judges the order too: changed by writers only.
  private let plain: UnsafeMutablePointer<UInt64>
  private let count: Int

  init(_ count: Int) {
    self.count = count
    words = .allocate(capacity: count)
    plain = .allocate(capacity: count)
    for index in 0..<count { (words + index).initialize(to: Atomic(0)) }
    plain.initialize(repeating: 0, count: count)
  }

  deinit {
    words.deallocate()
    plain.deallocate()
  }

  /// Enters all keys of the range; traps when somebody is there who must not be.
  func enter(_ keys: ClosedRange<Int>, _ mode: LockMode, seed: UInt64) {
    for key in keys {
      let old = words[key].wrappingAdd(mode == .write ? 1 << 16 : 1, ordering: .relaxed).oldValue
      if mode == .write ? old != 0 : old >= 1 << 16 {
        fatalError("key \(key): a \(mode) entered beside \(String(old, radix: 16)); SEED=\(seed)")
      }
      if mode == .write { plain[key] &+= 1 } else { precondition(plain[key] != UInt64.max) }
    }
  }

  func leave(_ keys: ClosedRange<Int>, _ mode: LockMode) {
    for key in keys {
      words[key].wrappingSubtract(mode == .write ? 1 << 16 : 1, ordering: .relaxed)
    }
  }

  /// Turns a reader into a writer; traps when somebody else is there.
  func upgrade(_ keys: ClosedRange<Int>, seed: UInt64) {
    for key in keys {
      let old = words[key].wrappingAdd((1 << 16) - 1, ordering: .relaxed).oldValue
      if old != 1 {
        fatalError("key \(key): an upgrade beside \(String(old, radix: 16)); SEED=\(seed)")
      }
      plain[key] &+= 1
    }
  }

  /// Turns a writer into a reader, while it holds the keys.
  func downgrade(_ keys: ClosedRange<Int>) {
    for key in keys { words[key].wrappingSubtract((1 << 16) - 1, ordering: .relaxed) }
  }

  var isQuiet: Bool { (0..<count).allSatisfy { words[$0].load(ordering: .relaxed) == 0 } }
}

/// How long stress runs: sanitizers and slow machines scale it down, nightly runs up.
let stressScale: Double =
  ProcessInfo.processInfo.environment["STRESS_SCALE"].flatMap(Double.init) ?? 1

extension LockTests {
  @Suite struct StressTests {
    struct Mix: CustomTestStringConvertible, Sendable {
      let testDescription: String
      let threads: Int
      let granuleShift: UInt8
      let keys: UInt64
      /// Percentages.
      let writes: UInt64
      let tries: UInt64
      let deadlines: UInt64
      let downgrades: UInt64
      /// Percentage of ranges of any size; the others are narrow.
      let wide: UInt64
    }

    static let mixes: [Mix] = [
      Mix(
        testDescription: "narrow, few conflicts", threads: 4, granuleShift: 4, keys: 4096,
        writes: 50, tries: 10, deadlines: 10, downgrades: 10, wide: 0),
      Mix(
        testDescription: "narrow and wide, all levels", threads: 6, granuleShift: 1, keys: 1024,
        writes: 50, tries: 10, deadlines: 10, downgrades: 20, wide: 20),
      Mix(
        testDescription: "mostly readers, a wide one now and then", threads: 6, granuleShift: 2,
        keys: 512, writes: 10, tries: 10, deadlines: 10, downgrades: 30, wide: 5),
      Mix(
        testDescription: "hot spot, many cancellations", threads: 8, granuleShift: 2, keys: 24,
        writes: 60, tries: 20, deadlines: 60, downgrades: 30, wide: 30),
      Mix(
        testDescription: "one key", threads: 4, granuleShift: 21, keys: 1, writes: 50, tries: 10,
        deadlines: 30, downgrades: 30, wide: 0),
      Mix(
        testDescription: "one key, readers in stripes", threads: 4, granuleShift: 21, keys: 1,
        writes: 1, tries: 10, deadlines: 10, downgrades: 1, wide: 0),
    ]

    @Test(arguments: mixes, [RangeLock.Fairness.firstComeFirstServed, .throughput])
    func `No two conflicting holds share a key`(_ mix: Mix, _ fairness: RangeLock.Fairness) {
      let seeds = SeededRandom(for: "stress: \(mix.testDescription), \(fairness)")
      let before = testPool.blocksInUse
      withWatchdog(seconds: 120, "stress \(mix.testDescription), SEED=\(seeds.seed)") {
        let lock = makeLock(.init(granuleShift: mix.granuleShift, fairness: fairness))
        let owners = OwnerWords(Int(mix.keys))
        let rounds = Int(20_000 * stressScale)
        runThreads(mix.threads) { thread in
          var random = seeds.fork(thread)
          for _ in 0..<rounds { Self.step(mix, lock, owners, &random, seed: seeds.seed) }
        }
        #expect(lock.holdCount == 0)
        #expect(lock.waiterCount == 0)
        #expect(owners.isQuiet)
      }
      // Every request came back: also those whose waiters gave up.
      #expect(testPool.blocksInUse == before)
    }

    private static func step(
      _ mix: Mix, _ lock: RangeLock, _ owners: OwnerWords, _ random: inout SeededRandom,
      seed: UInt64
    ) {
      let size = random.chance(mix.wide) ? mix.keys >> random.below(11) : 1 + random.below(4)
      let first = random.below(mix.keys)
      let last = min(mix.keys - 1, first + max(1, size) - 1)
      let mode: LockMode =
        random.chance(mix.writes) ? .write : random.chance(30) ? .upgradeableRead : .read
      let kind = random.below(100)
      let range = KeyRange(first: first, last: last)
      let hold: RangeHold?
      if kind < mix.tries {
        hold = lock.tryLock(over: range, mode)
      } else if kind < mix.tries + mix.deadlines {
        let patience = random.below(4) == 0 ? 0 : random.below(100_000)
        hold = lock.lock(over: range, mode, deadline: rl_monotonic_ns() + patience)
      } else {
        hold = lock.lock(over: range, mode)
      }
      guard var hold else { return }
      let keys = Int(first)...Int(last)
      owners.enter(keys, mode, seed: seed)
      if random.chance(5) { rl_yield() }
      if random.chance(mix.downgrades), mode != .write {
        // An upgradeable reader waits, a reader tries.
        if mode == .upgradeableRead, random.chance(50) {
          hold.upgrade()
        } else if !hold.tryUpgrade() {
          owners.leave(keys, mode)
          hold.release()
          return
        }
        owners.upgrade(keys, seed: seed)
        if random.chance(5) { rl_yield() }
        if random.chance(50) {
          owners.downgrade(keys)
          hold.downgrade(to: random.chance(50) ? .upgradeableRead : .read)
          owners.leave(keys, .read)
        } else {
          owners.leave(keys, .write)
        }
      } else if random.chance(20), keys.count > 1 {
        let middle = Int.random(in: keys, using: &random)
        let half = random.chance(50) ? keys.lowerBound...middle : middle...keys.upperBound
        for key in keys where !half.contains(key) { owners.leave(key...key, mode) }
        hold.shrink(to: KeyRange(UInt64(half.lowerBound)...UInt64(half.upperBound)))
        if random.chance(20) { rl_yield() }
        owners.leave(half, mode)
      } else if mode == .write, random.chance(mix.downgrades) {
        owners.downgrade(keys)
        hold.downgrade()
        if random.chance(20) { rl_yield() }
        owners.leave(keys, .read)
      } else {
        owners.leave(keys, mode)
      }
      hold.release()
    }

    @Test func `The semaphore excludes writers under stress`() {
      let seeds = SeededRandom(for: "stress: semaphore")
      withWatchdog(seconds: 120, "stress of the semaphore, SEED=\(seeds.seed)") {
        let box = SemaphoreBox()
        let owners = OwnerWords(1)
        let rounds = Int(40_000 * stressScale)
        runThreads(6) { thread in
          var random = seeds.fork(thread)
          for _ in 0..<rounds {
            let mode: LockMode = random.chance(40) ? .write : .read
            let entered: Bool
            switch random.below(4) {
            case 0: entered = box.pointer.pointee.tryLock(mode)
            case 1:
              entered = box.pointer.pointee.lock(
                mode, deadline: rl_monotonic_ns() + random.below(100_000))
            default:
              box.pointer.pointee.lock(mode)
              entered = true
            }
            if !entered { continue }
            owners.enter(0...0, mode, seed: seeds.seed)
            if random.chance(5) { rl_yield() }
            if mode == .write, random.chance(30) {
              owners.downgrade(0...0)
              box.pointer.pointee.downgrade()
              owners.leave(0...0, .read)
              box.pointer.pointee.unlock(.read)
            } else {
              owners.leave(0...0, mode)
              box.pointer.pointee.unlock(mode)
            }
          }
        }
        #expect(owners.isQuiet)
        #expect(box.pointer.pointee.queuedCount() == 0)
        let isHeld = (box.pointer.pointee.isHeld(.read), box.pointer.pointee.isHeld(.write))
        #expect(isHeld == (false, false))
      }
    }

    @Test func `Holds released by another thread do not make the pool grow for ever`() {
      withWatchdog("producer and consumer of holds") {
        let lock = makeLock()
        // Warm up, then count: 100,000 holds pass through, the pool may not grow with them.
        var carved = 0
        for round in 0..<2 {
          let holds = HoldQueue()
          let consumer = TestThread {
            for _ in 0..<50_000 { holds.take().release() }
          }
          for index in 0..<50_000 {
            let first = UInt64(index % 500) << 30
            holds.put(Held(lock.lock(over: KeyRange(first: first, last: first + 10), .read)))
          }
          consumer.join()
          if round == 0 { carved = testPool.blocksCarved }
        }
        #expect(testPool.blocksCarved <= carved + 2 * NodePool.cacheLimit)
      }
    }
  }
}

/// A bounded queue of holds between two threads.
private final class HoldQueue: @unchecked Sendable {
  // Sendable: `holds` is protected by `latch`.
  private let latch = Latch()
  private var holds: [Held] = []

  func put(_ held: Held) {
    while true {
      latch.lock()
      if holds.count < 100 {
        holds.append(held)
        latch.unlock()
        return
      }
      latch.unlock()
      rl_yield()
    }
  }

  func take() -> Held {
    while true {
      latch.lock()
      if let held = holds.popLast() {
        latch.unlock()
        return held
      }
      latch.unlock()
      rl_yield()
    }
  }
}
