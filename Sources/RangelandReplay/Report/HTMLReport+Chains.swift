// SPDX-License-Identifier: Apache-2.0
//
// The call chains of a page's waits.

import Rangeland

extension HTMLReport {
  /// Chains that a page shows.
  private static let chainLimit = 10

  /// The chains that waited longest: a line each, which opens to all functions and what was ahead.
  static func chains(_ waits: RecordedWaits) -> String {
    if waits.chains.isEmpty { return "" }
    let shown = waits.chains.prefix(chainLimit)
    var text =
      "<h4>Call chains that waited longest, \(shown.count) of \(waits.chainCount)</h4>\n<ol class=\"chains\">\n"
    for chain in shown {
      let line = CallChains.line(chain.frames, withKernel: chain.operation == nil)
      text +=
        "<li><details><summary>\(chain.operation.recordedName): <b>\(Verdict.seconds(chain.nanoseconds))</b> in "
        + "\(chain.waits) \(chain.waits == 1 ? "wait" : "waits"), <code>\(line.escaped)</code></summary>\n"
        + "<p class=\"soft\">\(share(chain.falseNanoseconds, of: chain.nanoseconds)) of it false, the longest "
        + "\(Verdict.seconds(chain.longest)).</p>\n" + functions(chain.frames)
      for blocker in chain.blockers {
        text +=
          "<p>\(share(blocker.nanoseconds, of: chain.nanoseconds)) behind \(blocker.operation.recordedName):</p>\n"
          + functions(blocker.frames)
      }
      text += "</details></li>\n"
    }
    return text + "</ol>\n"
  }

  /// Which code waits on the most processors, a column for each policy.
  static func simulatedChains(_ report: RecordingReport, processors: Int) -> String {
    let runs = report.policies.map { report.run($0, processors)?.chains ?? [] }
    let shown = SimulationRun.longestChains(runs).prefix(chainLimit)
    if shown.isEmpty { return "" }
    let rows = shown.map { chain in
      let frames = chain.chain.map(report.program.chains.chain) ?? []
      return ["\(chain.operation.recordedName): \(CallChains.line(frames, limit: 4))"]
        + runs.map { run in
          run.first(where: chain.isAlike)
            .map { "\(Verdict.seconds($0.nanoseconds)) in \($0.waits)" } ?? "-"
        }
    }
    return "<h4>Call chains that wait longest on \(processors) processors: time in waits</h4>\n"
      + table(["call chain"] + report.policies.map { ".\($0.rawValue)" }, Array(rows), texts: 1)
  }

  private static func share(_ part: UInt64, of whole: UInt64) -> String {
    whole == 0 ? "0 %" : Verdict.percent(Double(part) / Double(whole))
  }

  private static func functions(_ frames: [CallChains.Frame]) -> String {
    let lines = frames.isEmpty ? [CallChains.noChain] : CallChains.telling(frames).map(\.described)
    return "<pre>\(lines.joined(separator: "\n").escaped)</pre>\n"
  }
}
