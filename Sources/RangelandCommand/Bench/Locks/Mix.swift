// SPDX-License-Identifier: Apache-2.0
//
// Random ranges in 1 TiB, readers and writers, with work under the lock.

import RangeLocks

/// One mix of requests.
struct Mix {
  enum Width {
    /// Between 4 KiB and 1 MiB, evenly in pages.
    case narrow
    /// 1 % of the space.
    case hundredth
  }

  var writersPercent: UInt64
  var width: Width
  var workNanoseconds: Int
  var threads: Int

  static let space: UInt64 = 1 << 40

  static let all: [Mix] = [1, 20, 100].flatMap { writers in
    [Width.narrow, .hundredth].flatMap { width in
      [0, 200, 2000].flatMap { work in
        [2, 8].map { threads in
          Mix(writersPercent: writers, width: width, workNanoseconds: work, threads: threads)
        }
      }
    }
  }

  var name: String {
    let width = width == .narrow ? "4 KiB - 1 MiB" : "1 % of the space"
    return "\(writersPercent) % writers, \(width), \(workNanoseconds) ns, \(threads) threads"
  }

  /// The requests of one thread, the same in every run.
  func requests(thread: Int) -> [RangeRequest] {
    var random = SplitMix(seed: UInt64(thread) &* 7919 &+ 1)
    return (0..<1024).map { _ in request(&random) }
  }

  private func request(_ random: inout SplitMix) -> RangeRequest {
    let length: UInt64 =
      switch width {
      case .narrow: (1 + random.next() % 256) * 4096
      case .hundredth: Self.space / 100 & ~4095
      }
    let first = random.next() % (Self.space - length) & ~4095
    let mode: LockMode = random.next() % 100 < writersPercent ? .write : .read
    return RangeRequest(KeyRange(first..<(first + length)), mode)
  }

  /// The probability that a request conflicts with one of those that the other threads make at the time, as if
  /// every thread held a range all the time.
  var conflictProbability: Double {
    let requests = (0..<threads).map { self.requests(thread: $0) }
    var random = SplitMix(seed: 99)
    let samples = 20_000
    var conflicts = 0
    for _ in 0..<samples {
      let drawn = requests.map { $0[Int(random.next() % UInt64($0.count))] }
      let mine = drawn[0]
      if drawn.dropFirst().contains(where: {
        $0.range.overlaps(mine.range) && $0.mode.conflicts(with: mine.mode)
      }) {
        conflicts += 1
      }
    }
    return Double(conflicts) / Double(samples)
  }
}
