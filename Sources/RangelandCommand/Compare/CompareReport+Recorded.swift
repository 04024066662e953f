// SPDX-License-Identifier: Apache-2.0
//
// The first part of `compare`: what the kernel made the program wait for its lock.

import Foundation
import Rangeland
import RangelandReplay

extension CompareReport {
  /// Pairs that are printed; `--json` has all.
  private static let recordedPairLimit = 10

  static func recorded(_ waits: RecordedWaits?) -> String {
    guard let waits else {
      return
        "what the program waited for the kernel's lock is not in this recording: record it with `rangeland record`, or "
        + "with perf's mmap_lock events (docs/recording-format.md)\n"
    }
    var text = line("acquisitions of mmap_lock", [String(waits.acquisitions)])
    text += line("waits", [String(waits.waits)])
    text += line("time waited, ms (all threads)", [fixed(Double(waits.nanoseconds) / 1e6, 3)])
    text += line(
      waits.busyNanoseconds == nil ? "  of the run time" : "  of the time they wanted to run",
      [fixed(waits.share * 100, 3) + " %"])
    text += line("  false: no overlap, ms", [fixed(Double(waits.falseNanoseconds) / 1e6, 3)])
    text += line("false waits", [String(waits.falseWaits)])
    text += line("  unclassified", [String(waits.unclassifiedWaits)])
    text += line("a wait, median, us", [micro(waits.p50)])
    text += line("  99 in 100 below, us", [micro(waits.p99)])
    text += line("  longest, us", [micro(waits.longest)])
    if waits.pairs.isEmpty { return text }
    text += pairs(waits)
    return text + ChainReport.longest(waits)
  }

  private static func pairs(_ waits: RecordedWaits) -> String {
    var text = "operation x blocking operation: waits / ms / false ms\n"
    for pair in waits.pairs.prefix(recordedPairLimit) {
      text += line(
        "  \(pair.operation.recordedName) x \(pair.blocker.recordedName)",
        [
          String(pair.waits), fixed(Double(pair.nanoseconds) / 1e6, 3),
          fixed(Double(pair.falseNanoseconds) / 1e6, 3),
        ])
    }
    if waits.pairs.count > recordedPairLimit {
      text += "  and \(waits.pairs.count - recordedPairLimit) pairs more: --json has all\n"
    }
    return text
  }

  static func document(_ waits: RecordedWaits) -> JSON {
    .object([
      "acquisitions": .count(waits.acquisitions), "waits": .unsigned(waits.waits),
      "waitSeconds": .number(Double(waits.nanoseconds) / 1e9), "share": .number(waits.share),
      "busySeconds": waits.busyNanoseconds.map { .number(Double($0) / 1e9) } ?? .null,
      "runSeconds": .number(Double(waits.runNanoseconds) / 1e9),
      "falseWaits": .unsigned(waits.falseWaits),
      "falseWaitSeconds": .number(Double(waits.falseNanoseconds) / 1e9),
      "unclassifiedWaits": .unsigned(waits.unclassifiedWaits),
      "waitP50Nanoseconds": .unsigned(waits.p50), "waitP99Nanoseconds": .unsigned(waits.p99),
      "waitMaxNanoseconds": .unsigned(waits.longest),
      "blocked": .array(
        waits.pairs.map { pair in
          .object([
            "operation": pair.operation.map { .string($0.name) } ?? .null,
            "blocker": pair.blocker.map { .string($0.name) } ?? .null,
            "waits": .unsigned(pair.waits), "waitSeconds": .number(Double(pair.nanoseconds) / 1e9),
            "falseWaitSeconds": .number(Double(pair.falseNanoseconds) / 1e9),
          ])
        }), "waitingChains": .array(waits.chains.map { ChainReport.document($0) }),
      "waitingChainCount": .count(waits.chainCount),
    ])
  }

  /// Text in lines of at most `width` characters.
  static func wrapped(_ text: String, width: Int = 100) -> String {
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
      if !line.isEmpty && line.count + 1 + word.count > width {
        lines.append(line)
        line = ""
      }
      line += line.isEmpty ? String(word) : " " + word
    }
    lines.append(line)
    return lines.joined(separator: "\n") + "\n"
  }
}
