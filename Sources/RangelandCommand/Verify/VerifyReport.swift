// SPDX-License-Identifier: Apache-2.0
//
// What `rangeland verify` prints.

import RangelandVerify

struct VerifyReport {
  var report: Verification.Report
  var seconds: Double

  private var rows: [(row: Coverage.Row, hits: Int)] {
    func key(_ row: Coverage.Row) -> [String] { [row.call, row.answer, row.before, row.joined] }
    return report.coverage.hits.map { ($0.key, $0.value) }
      .sorted { key($0.0).lexicographicallyPrecedes(key($1.0)) }
  }

  // MARK: text

  func text() -> String {
    var text = "kernel \(report.kernel), policy \(report.policy.rawValue), "
    if report.threads > 1 { text += "\(report.threads) threads, " }
    text += report.isRandom ? "seed \(report.seed)\n" : "a script\n"
    let share = report.operations > 0 ? report.succeeded * 100 / report.operations : 0
    let rate = Int(Double(report.operations) / max(seconds, 1e-9))
    text += "\(report.operations) operations in \(report.scripts) scripts, \(share) % succeeded"
    text += report.difference == nil ? ", \(rate) operations/s\n" : "\n"
    if let difference = report.difference {
      text +=
        "\nDIFFERENCE: \(difference.what), after call \(difference.index + 1) of this script:\n"
      text += report.scriptText
      text += "kernel:\n\(indented(difference.kernel))address space:\n"
      return text + indented(difference.subject)
    }
    text += "no difference\n"
    if report.wasCancelled { text += "interrupted\n" }
    for (i, departure) in Departure.all.enumerated() {
      text += "departure \(departure.name): \(report.departures[i] ?? 0) times\n"
    }
    text += "\ncall            answer       before   joined     hits\n"
    for (row, hits) in rows {
      text += pad(row.call, 16) + pad(row.answer, 13) + pad(row.before, 9) + pad(row.joined, 7)
      text += "\(hits)\n".leftPadded(9)
    }
    if report.isRandom && report.operations < Coverage.judgedFrom {
      text += "\nshorter than \(Coverage.judgedFrom) operations: not judged by what it exercised\n"
    }
    for shortfall in report.shortfalls { text += "missing: \(shortfall)\n" }
    return text
  }

  private func indented(_ lines: String) -> String {
    lines.split(separator: "\n").map { "  \($0)\n" }.joined()
  }

  private func pad(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(1, width - text.count))
  }

  static func departureText() -> String {
    Departure.all.map {
      """
      \($0.name)
        when:      \($0.condition)
        kernel:    \($0.kernel)
        Rangeland: \($0.rangeland)
        because:   \($0.reason)
        at most:   \($0.boundPerMillion) of a million calls

      """
    }.joined()
  }

  // MARK: JSON

  func json() -> String {
    JSON.document([
      "kernel": .string(report.kernel), "seed": .unsigned(report.seed),
      "policy": .string(report.policy.rawValue), "threads": .count(report.threads),
      "kinds": .array(report.kinds.map { .string($0.rawValue) }),
      "operations": .count(report.operations),
      "scripts": .count(report.scripts), "succeeded": .count(report.succeeded),
      "seconds": .number(seconds), "interrupted": .bool(report.wasCancelled),
      "differences": .array(
        report.difference.map {
          [
            .object([
              "what": .string($0.what), "kernel": .string($0.kernel),
              "addressSpace": .string($0.subject), "script": .string(report.scriptText),
            ])
          ]
        } ?? []), "departures": Self.departures(report.departures),
      "coverage": .array(
        rows.map {
          .object([
            "call": .string($0.row.call), "answer": .string($0.row.answer),
            "before": .string($0.row.before), "joined": .string($0.row.joined),
            "hits": .count($0.hits),
          ])
        }),
      "minima": .array(
        report.coverage.minima(report.kinds, threads: report.threads).map {
          .object([
            "name": .string($0.name), "hits": .count($0.hits), "minimum": .count($0.minimum),
          ])
        }), "missing": .array(report.shortfalls.map { .string($0) }),
    ])
  }

  /// The list; with the hits of a run, if there was one.
  static func departures(_ hits: [Int: Int]?) -> JSON {
    .array(
      Departure.all.enumerated().map { i, departure in
        .object([
          "name": .string(departure.name), "condition": .string(departure.condition),
          "kernel": .string(departure.kernel), "rangeland": .string(departure.rangeland),
          "reason": .string(departure.reason), "perMillion": .count(departure.boundPerMillion),
          "hits": hits.map { .count($0[i] ?? 0) } ?? .null,
        ])
      })
  }
}

extension String {
  fileprivate func leftPadded(_ width: Int) -> String {
    String(repeating: " ", count: max(0, width - count)) + self
  }
}
