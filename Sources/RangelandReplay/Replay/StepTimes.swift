// SPDX-License-Identifier: Apache-2.0
//
// What operations of a kind cost in a run: medians over the times of many millions of steps.
//
// Mechanism: the median's upper 16 bits are found by counting, then its lower ones among the times that share them: two
//   looks at every step, and no list of times beside the one there is.

import Rangeland

enum StepTimes {
  /// How often each of 2^16 values came.
  private struct Counts {
    private var counts = [UInt32](repeating: 0, count: 1 << 16)
    private(set) var total = 0

    mutating func add(_ value: UInt32) {
      counts[Int(value)] += 1
      total += 1
    }

    /// The value that stands at `rank` in ascending order, and the rank among those that are equal to it.
    func value(at rank: Int) -> (value: UInt32, rank: Int) {
      var left = rank
      for (value, count) in counts.enumerated() {
        if left < Int(count) { return (UInt32(value), left) }
        left -= Int(count)
      }
      preconditionFailure("StepTimes: a rank beyond the last value")
    }
  }

  /// Count and median of the times by operation, in the order of `OperationKind.allCases`; the upper one of two in the
  /// middle.
  ///
  /// - Parameter operation: nil for steps that do not count.
  static func medians(
    _ steps: Range<Int>, operation: (Int) -> OperationKind?, time: (Int) -> UInt32
  ) -> [ReplayRun.Operation] {
    let kinds = OperationKind.allCases
    let size = 1 + (kinds.map { Int($0.rawValue) }.max() ?? 0)
    var upper = [Counts?](repeating: nil, count: size)
    for index in steps {
      guard let kind = operation(index) else { continue }
      if upper[Int(kind.rawValue)] == nil { upper[Int(kind.rawValue)] = Counts() }
      upper[Int(kind.rawValue)]?.add(time(index) >> 16)
    }
    // The values that share the median's upper half, and its rank among them.
    let middles = upper.map { counts in counts.map { $0.value(at: $0.total / 2) } }
    var lower = [Counts](repeating: Counts(), count: size)
    for index in steps {
      guard let kind = operation(index) else { continue }
      let time = time(index)
      if time >> 16 == middles[Int(kind.rawValue)]?.value {
        lower[Int(kind.rawValue)].add(time & 0xffff)
      }
    }
    return kinds.compactMap { kind in
      let place = Int(kind.rawValue)
      guard let counts = upper[place], let middle = middles[place] else { return nil }
      let low = lower[place].value(at: middle.rank).value
      return ReplayRun.Operation(
        operation: kind, count: counts.total, medianNanoseconds: UInt64(middle.value << 16 | low))
    }
  }
}
