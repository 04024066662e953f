// SPDX-License-Identifier: Apache-2.0
//
// `compare` for people: policies side by side.

import Foundation
import Rangeland
import RangelandReplay

extension CompareReport {
  func text() -> String {
    var text = recordings.map { Self.text($0) }.joined(separator: "\n")
    if recordings.count > 1 {
      text += "\n== In short ==\n"
      for recording in recordings {
        text += Self.wrapped("\(recording.name): \(recording.report.verdict.text)")
      }
    }
    return text
  }

  private static func text(_ recording: ComparedRecording) -> String {
    let plan = recording.comparison.plan
    let rows = recording.comparison.rows
    var text = "\(recording.name): \(recording.program), \(recording.threads) threads, "
    text += "\(plan.operations) operations, medians of \(recording.comparison.rounds) runs\n"
    text += "order: \(plan.orderedSteps) operations wait for others on the same pages, "
    text += "\(plan.ambiguousPairs) pairs had overlapping times\n"
    if !plan.substituted.isEmpty {
      text += "substituted by their effect on the layout: "
      text += plan.substituted.map { "\($0.count) \($0.kind)" }.joined(separator: ", ") + "\n"
    }
    text += "\n== Recorded ==\n" + recorded(recording.report.waits)
    text += "\n== Simulated ==\n" + recording.simulation.text()
    text += "\n== Measured ==\n" + table(recording.comparison)
    text += "\n" + warning + "\n" + waits(rows) + blocked(rows)
    if let placement = plan.placement { text += "\n== Placed ==\n" + placed(placement) }
    text += "\n== Verdict ==\n" + wrapped(recording.report.verdict.text)
    for row in rows where row.mismatches > 0 {
      text += "\n\(row.policy): \(row.mismatches) operations came to something else than recorded\n"
      for example in row.examples { text += "  \(example)\n" }
    }
    if let kernel = recording.comparison.kernel.figures, kernel.mismatches > 0 {
      text += "\nthe kernel: \(kernel.mismatches) operations came to something else than recorded\n"
      for example in kernel.examples { text += "  \(example)\n" }
    }
    return text
  }

  // MARK: tables

  private static let labelWidth = 34
  private static let columnWidth = 13

  static func line(_ label: String, _ cells: [String]) -> String {
    let padding = String(repeating: " ", count: max(1, labelWidth - label.count))
    return label + padding
      + cells.map { String(repeating: " ", count: max(1, columnWidth - $0.count)) + $0 }.joined()
      + "\n"
  }

  private static func table(_ comparison: PolicyComparison) -> String {
    let rows = comparison.rows
    let kernel = comparison.kernel.figures
    func line<Value>(
      _ label: String, _ rows: [Value], _ kernel: Value?, _ cell: (Value) -> String
    ) -> String {
      Self.line(label, (rows + (kernel.map { [$0] } ?? [])).map(cell))
    }
    var text = line("", rows.map(\.policy.rawValue), kernel.map { _ in "kernel" }) { $0 }
    text += line(
      "operations a second", rows.map(\.operationsPerSecond), kernel?.operationsPerSecond, grouped)
    text += line("elapsed, ms", rows.map(\.timed.nanoseconds), kernel?.timed.nanoseconds) {
      fixed(Double($0) / 1e6, 1)
    }
    text += line("  least - most", rows.map(\.times), kernel?.times) { times in
      [times.first, times.last].map { fixed(Double($0 ?? 0) / 1e6, 0) }.joined(separator: "-")
    }
    text += line(
      "waits for the recorded order, ms", rows.map(\.timed.dependencyNanoseconds),
      kernel?.timed.dependencyNanoseconds
    ) { fixed(Double($0) / 1e6, 1) }
    text += line(
      "results unlike the recording", rows.map(\.mismatches), kernel?.mismatches, String.init)
    text += "\nmedian cost, ns\n"
    let costs = rows.map(\.byOperation) + (kernel.map { [$0.byOperation] } ?? [])
    for operation in OperationKind.allCases {
      let found = costs.map { costs in costs.first { $0.operation == operation } }
      guard let count = found.compactMap({ $0?.count }).max() else { continue }
      text += Self.line(
        "  \(operation.name) (\(count))",
        found.map { $0.map { String($0.medianNanoseconds) } ?? "-" })
    }
    return text + "\n" + wrapped(Self.kernel(comparison.kernel))
  }

  private static func waits(_ rows: [PolicyComparison.Row]) -> String {
    let statistics = rows.map(\.waits)
    var text = line("waits for locks", statistics.map { String($0.waits) })
    text += line("  false: nobody ahead overlapped", statistics.map { String($0.falseWaits) })
    if statistics.contains(where: { $0.unclassifiedWaits > 0 }) {
      text += line("  unclassified", statistics.map { String($0.unclassifiedWaits) })
    }
    text += line("time waited, ms", statistics.map { fixed($0.waitSeconds * 1e3, 2) })
    text += line("  false", statistics.map { fixed($0.falseWaitSeconds * 1e3, 2) })
    text += line("a wait, median, us", statistics.map { micro($0.waitP50Nanoseconds) })
    text += line("  99 in 100 below, us", statistics.map { micro($0.waitP99Nanoseconds) })
    text += line("  longest, us", statistics.map { micro($0.waitMaxNanoseconds) })
    return text
  }

  /// Pairs that are printed; `--json` has all.
  private static let pairLimit = 12

  /// Who waited for whom: waits and milliseconds of the pairs that cost most, over all policies.
  private static func blocked(_ rows: [PolicyComparison.Row]) -> String {
    struct Pair: Hashable {
      var operation: OperationKind
      var blocker: OperationKind?
    }
    let statistics = rows.map(\.waits)
    var seconds: [Pair: Double] = [:]
    for blocked in statistics.flatMap(\.blocked) {
      seconds[
        Pair(operation: blocked.operation, blocker: blocked.blocker), default: 0] +=
        blocked.waitSeconds
    }
    if seconds.isEmpty { return "" }
    var text = "\noperation x blocking operation: waits / ms\n"
    let pairs = seconds.keys.sorted {
      (seconds[$1]!, $0.operation.rawValue, $0.blocker?.rawValue ?? .max)
        < (seconds[$0]!, $1.operation.rawValue, $1.blocker?.rawValue ?? .max)
    }
    for pair in pairs.prefix(pairLimit) {
      text += line(
        "  \(pair.operation.name) x \(pair.blocker?.name ?? "being woken")",
        statistics.map { statistics in
          let found = statistics.blocked.first {
            $0.operation == pair.operation && $0.blocker == pair.blocker
          }
          return found.map { "\($0.waits) / \(fixed($0.waitSeconds * 1e3, 2))" } ?? "-"
        })
    }
    if pairs.count > pairLimit {
      text += "  and \(pairs.count - pairLimit) pairs more: --json has all\n"
    }
    return text
  }

  // MARK: numbers

  static func fixed(_ value: Double, _ digits: Int) -> String {
    String(format: "%.\(digits)f", value)
  }

  static func micro(_ nanoseconds: UInt64) -> String {
    fixed(Double(nanoseconds) / 1e3, 1)
  }

  private static func grouped(_ value: Double) -> String {
    var digits = String(Int(value.rounded()))
    var index = digits.endIndex
    while digits.distance(from: digits.startIndex, to: index) > 3 {
      index = digits.index(index, offsetBy: -3)
      digits.insert(",", at: index)
    }
    return digits
  }
}
