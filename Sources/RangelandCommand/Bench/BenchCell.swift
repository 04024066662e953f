// SPDX-License-Identifier: Apache-2.0
//
// One cell of a benchmark: a loop on a subject with a number of threads.

import CRangeland
import Foundation
import Synchronization

/// What one thread of a cell repeats.
protocol BenchBody: Sendable {
  /// Runs a batch and returns how many operations it did.
  func runBatch() -> Int
}

/// A loop on a subject, ready to be measured again and again.
struct BenchCell {
  /// The loop, `mmap1` for instance.
  var name: String
  /// What runs it, `kernel` or a policy.
  var subject: String
  var threads: Int
  /// Makes what every thread of a run repeats; outside the clock.
  var prepare: (_ threads: Int) throws -> [any BenchBody]
}

/// The measured runs of a cell, in nanoseconds an operation of one thread.
struct BenchResult: Codable {
  var name: String
  var subject: String
  var threads: Int
  var medianNanoseconds: Double
  var minNanoseconds: Double
  var maxNanoseconds: Double
  var runs: Int

  init(_ cell: BenchCell, _ samples: [Double]) {
    name = cell.name
    subject = cell.subject
    threads = cell.threads
    let sorted = samples.sorted()
    medianNanoseconds = sorted[sorted.count / 2]
    minNanoseconds = sorted.first!
    maxNanoseconds = sorted.last!
    runs = sorted.count
  }
}

/// What a measured figure has to reach.
struct BenchTarget: Codable {
  var name: String
  /// At least this, or at most where the name says so.
  var required: Double
  var measured: Double
  var met: Bool
}

/// A figure that is no time of an operation.
struct BenchFact: Codable {
  var name: String
  var value: Double
  var unit: String
}
