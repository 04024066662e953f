// SPDX-License-Identifier: Apache-2.0
//
// What the range lock adds: who conflicts with whom, at all sizes and at the edges of the key space.

import CRangeland
import RangeLocks
import RangelandTestSupport
import Testing

extension LockTests {
  @Suite struct RangeTests {
    /// Starts of windows of six keys: the ends of the space and the borders of granules of several levels,
    /// with granules of 2, 32, 512, ... keys.
    static let windows: [UInt64] = [
      0, 28, 509, 8189, (1 << 33) - 3, (1 << 61) - 2, (1 << 63) - 3, UInt64.max - 5,
    ]

    @Test(arguments: windows)
    func `Two small ranges conflict exactly if they overlap and not both read`(_ window: UInt64) {
      let ranges = (0..<6).flatMap { a in
        (a..<6).map { KeyRange(first: window + UInt64(a), last: window + UInt64($0)) }
      }
      for shift: UInt8 in [1, 2, 21] {
        check(ranges, makeLock(.init(granuleShift: shift)))
      }
    }

    @Test func `Ranges of all sizes conflict exactly if they overlap and not both read`() {
      var ranges: [KeyRange] = [.all]
      for bits in stride(from: 0, through: 63, by: 3) {
        let size = UInt64(1) << UInt64(bits)
        ranges.append(KeyRange(first: 0, last: size - 1))
        ranges.append(KeyRange(first: size - 1, last: size))
        ranges.append(KeyRange(first: size / 2, last: size))
        ranges.append(KeyRange(first: UInt64.max - (size - 1), last: .max))
      }
      check(ranges, makeLock(.init(granuleShift: 1)))
      check(ranges, makeLock())
    }

    /// Holds each range in each mode and tries each other.
    private func check(_ ranges: [KeyRange], _ lock: RangeLock) {
      for first in ranges {
        for mode in [LockMode.read, .write] {
          let hold = lock.lock(over: first, mode)
          for second in ranges {
            for other in [LockMode.read, .write] {
              let expected = !(first.overlaps(second) && mode.conflicts(with: other))
              let granted = lock.isFree(over: second, other)
              #expect(granted == expected, "\(mode) \(first), then \(other) \(second)")
            }
          }
          hold.release()
        }
      }
      #expect(lock.holdCount == 0)
    }

    @Test(arguments: [1, 3, 21] as [UInt8])
    func `Any sequence of tries, releases and downgrades agrees with a list of holds`(
      _ shift: UInt8
    ) {
      var random = SeededRandom(for: "model, granule shift \(shift)")
      let lock = makeLock(.init(granuleShift: shift))
      var held: [Held] = []
      var model: [(range: KeyRange, mode: LockMode)] = []
      for step in 0..<20_000 {
        let choice = random.below(100)
        if choice < 60 {
          let range = randomRange(&random)
          let mode: LockMode = random.chance(50) ? .read : .write
          let expected = !model.contains {
            $0.range.overlaps(range) && $0.mode.conflicts(with: mode)
          }
          let hold = lock.tryLock(over: range, mode)
          let granted = hold != nil
          if let hold {
            held.append(Held(hold))
            model.append((range, mode))
          }
          #expect(granted == expected, "step \(step), SEED=\(random.seed): \(mode) \(range)")
          if granted != expected { break }
        } else if !model.isEmpty {
          let index = Int(random.below(UInt64(model.count)))
          if choice < 70 {
            held[index].downgrade()
            model[index].mode = .read
          } else {
            held.remove(at: index).release()
            model.remove(at: index)
          }
        }
      }
      for hold in held { hold.release() }
      #expect(lock.holdCount == 0)
    }

    /// Any size, most often small; anywhere, most often near a few places.
    private func randomRange(_ random: inout SeededRandom) -> KeyRange {
      let size = random.next() >> random.below(random.chance(80) ? 60 : 63)
      let small = size >> (random.chance(70) ? 45 : 0)
      let places: [UInt64] = [0, 1 << 21, 1 << 25, 1 << 40, 1 << 63, UInt64.max]
      let place = places[Int(random.below(UInt64(places.count)))]
      let first = place &+ random.below(1 << 22) &- (1 << 21)
      let (last, overflow) = first.addingReportingOverflow(small)
      return KeyRange(first: first, last: overflow ? .max : last)
    }

    @Test func `Disjoint ranges never wait for each other`() {
      withWatchdog("disjoint ranges") {
        let lock = makeLock(.init(granuleShift: 4))
        // Touching, of several levels; every one is a blocking request beside all others.
        let borders: [UInt64] = [0, 1, 15, 16, 17, 300, 5000, 5001, 1 << 20, 1 << 40, UInt64.max]
        var held: [Held] = []
        for (first, next) in zip(borders, borders.dropFirst()) {
          held.append(Held(lock.lock(over: KeyRange(first..<next), .write)))
        }
        held.append(Held(lock.lock(over: KeyRange(UInt64.max...), .write)))
        #expect(lock.holdCount == borders.count)
        #expect(!lock.isFree(over: .all, .read))
        for hold in held { hold.release() }
      }
    }

    @Test func `A wide writer is not starved by a stream of narrow writers`() {
      withWatchdog("wide among narrow") {
        let lock = makeLock(.init(granuleShift: 4))
        // Two narrow holds that overlap in time, again and again: the wide range is never free by itself.
        var current = Held(lock.lock(over: KeyRange(0...3), .write))
        let done = Journal()
        let wide = TestThread {
          lock.withWriteLock(over: .all) { done.note("wide") }
        }
        waitUntil { lock.waiterCount == 1 }
        let stream = TestThread {
          for index in 0..<100 {
            lock.withWriteLock(over: KeyRange(UInt64(index) * 40...UInt64(index) * 40 + 3)) {
              done.note("narrow")
            }
          }
        }
        waitUntil { lock.waiterCount == 2 }
        current.release()
        wide.join()
        stream.join()
        #expect(done.all.first == "wide")
        current = Held(lock.lock(over: .all, .write))
        current.release()
      }
    }

    @Test func `A narrow request is not starved by wide readers that keep overlapping`() {
      withWatchdog("narrow among wide") {
        let lock = makeLock(.init(granuleShift: 4))
        var current = Held(lock.lock(over: .all, .read))
        let journal = Journal()
        let narrow = TestThread {
          lock.withWriteLock(over: KeyRange(5...5)) { journal.note("narrow") }
        }
        waitUntil { lock.waiterCount == 1 }
        // The next wide reader queues behind the narrow writer.
        #expect(!lock.isFree(over: .all, .read))
        // Elsewhere nobody is disturbed.
        let elsewhere = Held(lock.tryLock(over: KeyRange(6...100), .read)!)
        elsewhere.release()
        current.release()
        narrow.join()
        #expect(journal.all == ["narrow"])
        current = Held(lock.lock(over: .all, .write))
        current.release()
      }
    }

    @Test func `A release wakes only the waiters that it unblocks`() {
      withWatchdog("partial release") {
        let lock = makeLock(.init(granuleShift: 4))
        let left = Held(lock.lock(over: KeyRange(0...9), .write))
        let right = Held(lock.lock(over: KeyRange(100...109), .write))
        let journal = Journal()
        let both = TestThread {
          lock.withWriteLock(over: KeyRange(5...105)) { journal.note("both") }
        }
        waitUntil { lock.waiterCount == 1 }
        let leftOnly = TestThread {
          lock.withWriteLock(over: KeyRange(0...3)) { journal.note("left") }
        }
        leftOnly.joinAfter {
          waitUntil { lock.waiterCount == 2 }
          left.release()
        }
        #expect(journal.all == ["left"])
        #expect(lock.waiterCount == 1)
        right.release()
        both.join()
        #expect(journal.all == ["left", "both"])
      }
    }

    @Test func `The scoped forms return values, pass errors on and release`() {
      struct Refused: Error {}
      let lock = makeLock()
      let sum = lock.withReadLock(over: KeyRange(1...2)) { 3 }
      #expect(sum == 3)
      #expect(throws: Refused.self) {
        try lock.withWriteLock(over: .all) { throw Refused() }
      }
      #expect(lock.holdCount == 0)
    }

    @Test func `Destroying a lock that is held traps`() async {
      let result = await #expect(
        processExitsWith: .failure, observing: [\.standardErrorContent]
      ) {
        var lock: RangeLock? = makeLock()
        let hold = lock!.tryLock(over: KeyRange(1...2), .write)!
        lock = nil
        hold.release()
      }
      let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
      #expect(message.contains("destroyed while a range is held"))
    }
  }
}

extension TestThread {
  /// Runs `body`, then joins.
  func joinAfter(_ body: () -> Void) {
    body()
    join()
  }
}
