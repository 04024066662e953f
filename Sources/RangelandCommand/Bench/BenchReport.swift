// SPDX-License-Identifier: Apache-2.0
//
// What a benchmark prints: a table for people, JSON for programs.

import Foundation
import Glibc

/// `bench --json`.
struct BenchReport: Codable {
  var schemaVersion = 1
  var machine: Machine
  var cells: [BenchResult]
  var targets: [BenchTarget]
  /// What is measured otherwise than as a time of an operation.
  var facts: [BenchFact] = []
  /// What the figures are.
  var unit: String

  /// Where the figures come from.
  struct Machine: Codable {
    var kernel: String
    var processor: String
    var cores: Int

    static func here() -> Machine {
      var names = utsname()
      uname(&names)
      let release = withUnsafeBytes(of: &names.release) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      let info = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
      let model =
        info.split(separator: "\n").first { $0.hasPrefix("model name") }?
        .split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
      return Machine(
        kernel: release, processor: model, cores: ProcessInfo.processInfo.activeProcessorCount)
    }
  }

  func text() -> String {
    var lines = [
      "\(machine.processor), \(machine.cores) cores, Linux \(machine.kernel)",
      unit, "",
    ]
    let names = cells.map(\.name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    for name in names {
      lines.append(name)
      for cell in cells where cell.name == name {
        lines.append(
          "  " + pad(cell.subject, 26) + pad("x\(cell.threads)", 4)
            + String(
              format: "%10.1f  (%.1f - %.1f)", cell.medianNanoseconds, cell.minNanoseconds,
              cell.maxNanoseconds))
      }
    }
    if !facts.isEmpty { lines.append("") }
    for fact in facts {
      lines.append(
        pad(fact.name, 80)
          + String(format: "%12.\(fact.value == fact.value.rounded() ? 0 : 1)f ", fact.value)
          + fact.unit)
    }
    lines.append("")
    for target in targets {
      lines.append(
        (target.met ? "met     " : "MISSED  ") + pad(target.name, 80)
          + String(format: "%6.2f  (required %.1f)", target.measured, target.required))
    }
    return lines.joined(separator: "\n")
  }

  private func pad(_ text: String, _ width: Int) -> String {
    text.count >= width ? text + " " : text + String(repeating: " ", count: width - text.count)
  }
}
