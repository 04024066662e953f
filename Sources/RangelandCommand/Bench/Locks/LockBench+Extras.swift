// SPDX-License-Identifier: Apache-2.0
//
// What `bench locks` measures otherwise than as a time of an operation.

import RangeLocks

extension LockBench {
  /// Figures, and those of them that have to reach something.
  struct Extras {
    var facts: [BenchFact] = []
    var targets: [BenchTarget] = []

    mutating func note(_ name: String, _ value: Double, _ unit: String) {
      facts.append(BenchFact(name: name, value: value, unit: unit))
    }

    mutating func require(_ name: String, atMost required: Double, _ measured: Double) {
      targets.append(
        BenchTarget(
          name: name + ", at most", required: required, measured: measured,
          met: measured <= required))
    }
  }

  func extras() -> Extras {
    var extras = Extras()
    if groups.contains("overtaking") {
      overtaking("first come, first served", .firstComeFirstServed, bound: 0, &extras)
      overtaking("throughput", .throughput, bound: RangeLock.Fairness.mostPasses, &extras)
    }
    if groups.contains("cancel") { cancelStorm(&extras) }
    return extras
  }

  private func overtaking(
    _ setting: String, _ fairness: RangeLock.Fairness, bound: Int, _ extras: inout Extras
  ) {
    let lock = RangeLock(configuration: .init(fairness: fairness))
    let seen = Overtaking.measured(lock, readers: 7, milliseconds: 1500)
    let name = "whole-space writer among 7 readers, \(setting)"
    extras.note("\(name): requests of the writer", Double(seen.writes), "")
    extras.note("\(name): of them seen waiting", Double(seen.watched), "")
    extras.note("\(name): requests of the readers", Double(seen.reads), "")
    extras.note("\(name): longest wait of the writer", Double(seen.longestWrite) / 1000, "us")
    extras.note("\(name): longest wait of a reader", Double(seen.longestRead) / 1000, "us")
    extras.note("\(name): overtakings of all seen", Double(seen.sum), "")
    extras.require("\(name): overtakings of one", atMost: Double(bound), Double(seen.most))
  }

  private func cancelStorm(_ extras: inout Extras) {
    let storm = CancelStorm.measured(threads: 8, requests: 25_000)
    let name = "\(storm.cancelled) requests that gave up behind one hold"
    let grown = Double(storm.residentAfter - storm.residentBefore)
    extras.note("\(name): resident before", Double(storm.residentBefore) / 1024, "KiB")
    extras.note("\(name): resident after", Double(storm.residentAfter) / 1024, "KiB")
    extras.note("\(name): acquire and release before", storm.before, "ns")
    extras.note("\(name): acquire and release after", storm.after, "ns")
    // A page here and there is the system's; a tenth of a block for each request would be ours.
    extras.require(
      "\(name): bytes a request that stay", atMost: 12.8, grown / Double(storm.cancelled))
    extras.require("\(name): time after against before", atMost: 1.1, storm.after / storm.before)
  }
}
