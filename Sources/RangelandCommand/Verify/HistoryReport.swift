// SPDX-License-Identifier: Apache-2.0
//
// What `rangeland verify --histories` prints.

import RangelandVerify

struct HistoryReport {
  var report: HistoryVerification.Report
  var seconds: Double

  func text() -> String {
    var text =
      "policy \(report.policy.rawValue), \(report.threads) threads, seed \(report.seed)\n"
      + "\(report.histories) histories of \(report.operations) operations, "
      + "\(Int(Double(report.histories) / max(seconds, 1e-9))) histories/s, "
      + "\(report.overlaps) pairs of calls met\n"
    if let history = report.unexplained {
      return text + "\nDIFFERENCE: no sequential order explains this history:\n\(history)"
    }
    text += "every history has a sequential order that explains it"
    text += report.undecided == 0 ? "\n" : ", but \(report.undecided), which were given up\n"
    if report.wasCancelled { text += "interrupted\n" }
    text += "\ncall and answer              hits\n"
    for (name, hits) in report.coverage.sorted(by: { $0.key < $1.key }) {
      text += name + String(repeating: " ", count: max(1, 29 - name.count)) + "\(hits)\n"
    }
    if report.histories < HistoryVerification.judgedFrom {
      text +=
        "\nfewer than \(HistoryVerification.judgedFrom) histories: not judged by what they met\n"
    }
    for shortfall in report.shortfalls { text += "missing: \(shortfall)\n" }
    return text
  }

  func json() -> String {
    JSON.document([
      "seed": .unsigned(report.seed), "policy": .string(report.policy.rawValue),
      "threads": .count(report.threads), "histories": .count(report.histories),
      "operations": .count(report.operations), "seconds": .number(seconds),
      "interrupted": .bool(report.wasCancelled), "overlaps": .count(report.overlaps),
      "undecided": .count(report.undecided),
      "differences": .array(report.unexplained.map { [.string($0)] } ?? []),
      "coverage": .array(
        report.coverage.sorted { $0.key < $1.key }.map {
          .object(["answer": .string($0.key), "hits": .count($0.value)])
        }), "missing": .array(report.shortfalls.map { .string($0) }),
    ])
  }
}
