// SPDX-License-Identifier: Apache-2.0
//
// What the cells of `bench locks` have to reach.

import RangeLocks

extension LockBench {
  func targets(_ results: [BenchResult]) -> [BenchTarget] {
    var targets: [BenchTarget] = []
    func median(_ name: String, _ subject: String, _ threads: Int) -> Double? {
      results.first { $0.name == name && $0.subject == subject && $0.threads == threads }?
        .medianNanoseconds
    }
    func atMost(_ name: String, _ required: Double, _ measured: Double?, _ base: Double?) {
      guard let measured, let base else { return }
      let ratio = measured / base
      targets.append(
        BenchTarget(
          name: name + ", at most", required: required, measured: ratio, met: ratio <= required))
    }
    /// How much more all threads do than one.
    func scaling(_ name: String, _ subject: String, _ threads: Int, _ required: Double) {
      guard let one = median(name, subject, 1), let many = median(name, subject, threads) else {
        return
      }
      let ratio = one / many * Double(threads)
      targets.append(
        BenchTarget(
          name: "\(name), \(threads) threads against 1, at least", required: required,
          measured: ratio, met: ratio >= required))
    }

    let directory = DirectorySubject.name
    for word in ["read", "write"] {
      for width in ["narrow", "whole"] {
        let name = "alone, \(word) \(width)"
        atMost(
          "\(name): range lock against pthread_rwlock", 1.0,
          median(name, RangeLockSubject.name, 1), median(name, PthreadRWLock.name, 1))
      }
      let name = "alone, \(word) narrow"
      atMost(
        "\(name): directory against pthread_rwlock", 1.5, median(name, directory, 1),
        median(name, PthreadRWLock.name, 1))
    }
    for threads in threadCounts where threads > 1 {
      for shape in ["4 KiB", "128 MiB, adjacent", "128 MiB, far apart"] {
        scaling("disjoint \(shape)", directory, threads, 0.95 * Double(threads))
      }
      scaling("readers of one range", directory, threads, 0.75 * Double(threads))
    }
    atMost(
      "one more range, 1,000,000 held against 1", 2,
      median("one more, fixed place", "1000000 held", 1),
      median("one more, fixed place", "1 held", 1))
    for mix in Mix.all { targets += self.targets(mix, results) }
    atMost(
      "hand-off: throughput against pthread_mutex", 1.2,
      median("hand-off of one range", ThroughputSubject.name, 2),
      median("hand-off of one range", PthreadMutex.name, 2))
    atMost(
      "hand-off: range lock against ticket lock", 1.2,
      median("hand-off of one range", RangeLockSubject.name, 2),
      median("hand-off of one range", Ticket.name, 2))
    return targets
  }

  /// Ahead of every peer where few requests conflict, near the best elsewhere.
  private func targets(_ mix: Mix, _ results: [BenchResult]) -> [BenchTarget] {
    let cells = results.filter { $0.name == mix.name }
    guard let ours = cells.first(where: { $0.subject == RangeLockSubject.name }),
      let best = cells.filter({ !$0.subject.hasPrefix(ours.subject) })
        .min(by: { $0.medianNanoseconds < $1.medianNanoseconds })
    else { return [] }
    let probability = mix.conflictProbability
    let required = probability < 0.25 ? 1.0 : 1.2
    let ratio = ours.medianNanoseconds / best.medianNanoseconds
    let percent = Int((probability * 100).rounded())
    return [
      BenchTarget(
        name: "\(mix.name) (\(percent) % conflict): range lock against \(best.subject), at most",
        required: required, measured: ratio, met: ratio <= required)
    ]
  }
}
