// SPDX-License-Identifier: Apache-2.0
//
// A page about recordings: one file that needs nothing else, no network, no scripts.
//
// Guarantee: well-formed (also as XML), self-contained, legible in a dark and a light browser, narrow and wide, and
// without colours: lines differ in their dashes and marks, bars and cells in their shapes.

import Foundation
import Rangeland

/// Pages about recordings.
public enum HTMLReport {
  /// A page about `reports`.
  public static func page(_ reports: [RecordingReport]) -> String {
    var text = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
    text += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
    let title = reports.map(\.name).joined(separator: ", ")
    text +=
      "<title>Rangeland: \(title.escaped)</title><style>\(HTMLStyle.text)</style></head>\n<body><main>\n"
    text += "<h1>What did the address-space lock cost?</h1>\n"
    if reports.count > 1 {
      text += "<nav><ul>"
      for (index, report) in reports.enumerated() {
        text += "<li><a href=\"#r\(index)\">\(report.name.escaped)</a></li>"
      }
      text += "</ul></nav>\n"
    }
    for (index, report) in reports.enumerated() { text += section(report, index) }
    text +=
      "<footer>Made by <code>rangeland compare --html</code>. docs/insight.md says what each figure means and where the "
      + "simulation cannot be trusted.</footer>\n</main></body></html>\n"
    return text
  }

  /// Writes the page to `path`, whole or not at all.
  public static func write(_ reports: [RecordingReport], to path: String) throws(RecordingError) {
    var file = try OutputFile(path: path)
    try file.write(Array(page(reports).utf8))
    try file.commit()
  }

  private static func section(_ report: RecordingReport, _ index: Int) -> String {
    var text = "<section id=\"r\(index)\"><h2>\(report.name.escaped)</h2>\n"
    text +=
      "<p class=\"soft\">\(report.recorded.escaped), \(report.program.threadCount) threads, \(report.program.operations) operations, "
      + "\(Verdict.seconds(report.program.recordedNanoseconds))</p>\n"
    text += "<p class=\"verdict\">\(report.verdict.text.escaped)</p>\n"
    if report.program.calibration == .none {
      text +=
        "<p class=\"warning\"><strong>Uncalibrated.</strong> The recording has no scheduler events: time between operations passes "
        + "whatever the thread did in it, and no more than \(report.program.mostCores) processors are simulated.</p>\n"
    }
    text += recorded(report)
    if !report.runs.isEmpty { text += simulated(report) }
    if !report.costs.isEmpty { text += measured(report) }
    if let placement = report.placement { text += placed(placement) }
    text += activity(report)
    if !report.note.isEmpty {
      text +=
        "<details><summary>How it was recorded</summary><pre>\(report.note.escaped)</pre></details>\n"
    }
    return text + "</section>\n"
  }

  // MARK: parts

  private static func recorded(_ report: RecordingReport) -> String {
    var text = "<h3>Recorded</h3>\n"
    guard let waits = report.waits else {
      return text
        + "<p>What the program waited for the kernel's lock is not in this recording.</p>\n"
    }
    text += "<div class=\"figures\">"
    for (value, name) in [
      (Verdict.seconds(waits.nanoseconds), "waited for mmap_lock"),
      (
        Verdict.percent(waits.share),
        waits.busyNanoseconds == nil ? "of the run time" : "of the time threads wanted to run"
      ),
      (
        "\(waits.waits)",
        "\(waits.waits == 1 ? "wait" : "waits") of \(waits.acquisitions) acquisitions"
      ),
      (Verdict.seconds(waits.p50), "half were shorter"),
      (Verdict.seconds(waits.p99), "99 in 100 were shorter"),
      (Verdict.seconds(waits.longest), "the longest"),
      ("\(waits.falseWaits)", "false: nobody ahead on the same pages"),
      ("\(waits.unclassifiedWaits)", "unclassified"),
    ] {
      text += "<div><b>\(value)</b><span>\(name)</span></div>"
    }
    text += "</div>\n"
    if waits.pairs.isEmpty { return text }
    text += table(
      ["operation", "behind", "waits", "time", "false"],
      waits.pairs.prefix(12).map { pair in
        [
          pair.operation.recordedName, pair.blocker.recordedName,
          "\(pair.waits)", Verdict.seconds(pair.nanoseconds),
          pair.nanoseconds == 0
            ? "0 %" : Verdict.percent(Double(pair.falseNanoseconds) / Double(pair.nanoseconds)),
        ]
      }, texts: 2)
    return text + chains(waits)
  }

  private static func simulated(_ report: RecordingReport) -> String {
    let program = report.program
    var text = "<h3>Simulated</h3>\n<p>"
    if program.calibration == .full {
      text +=
        "Its own timing: \(Verdict.seconds(program.runningNanoseconds)) of processor time and "
        + "\(Verdict.seconds(program.blockedNanoseconds)) blocked are kept; \(Verdict.seconds(program.readyNanoseconds)) without a "
        + "processor and \(Verdict.seconds(program.lockWaitNanoseconds)) of waits for the lock are taken out. "
    }
    text +=
      (program.hasRecordedHolds
        ? "Holds are the kernel's." : "Holds are as long as the calls took.") + "</p>\n"
    text +=
      "<div class=\"pictures\"><figure>\(report.scalingPicture())<figcaption>Run time</figcaption></figure>"
    let most = report.cores.last ?? 2
    text +=
      "<figure>\(report.lengthsPicture(processors: most))<figcaption>Lengths of waits; simulated on \(most) processors</figcaption></figure></div>\n"
    text += table(
      ["", "processors"] + [
        "run time", "waits", "waited", "of it falsely", "99 in 100 below", "longest",
      ],
      report.policies.flatMap { policy in
        report.cores.compactMap { number in
          report.run(policy, number).map { run in
            [
              ".\(policy.rawValue)", "\(number)", Verdict.seconds(run.nanoseconds),
              "\(run.waits.waits)", seconds(run.waits.waitSeconds),
              run.waits.waitSeconds == 0
                ? "0 %" : Verdict.percent(run.waits.falseWaitSeconds / run.waits.waitSeconds),
              Verdict.seconds(run.waits.waitP99Nanoseconds),
              Verdict.seconds(run.waits.waitMaxNanoseconds),
            ]
          }
        }
      }, texts: 1)
    return text + simulatedChains(report, processors: most)
  }

  private static func seconds(_ value: Double) -> String {
    Verdict.seconds(UInt64((value * 1e9).rounded()))
  }

  private static func measured(_ report: RecordingReport) -> String {
    "<h3>Measured</h3>\n<p>Median cost of an operation, replayed as fast as the recorded order allows; nanoseconds.</p>\n"
      + (report.costNote.isEmpty ? "" : "<p class=\"soft\">\(report.costNote.escaped)</p>\n")
      + table(
        ["operation", "count"] + report.costSubjects,
        report.costs.map { cost in
          [cost.operation, "\(cost.count)"] + cost.nanoseconds.map { $0.map(String.init) ?? "-" }
        }, texts: 1)
  }

  private static func placed(_ placement: PlacementAgreement) -> String {
    var text = "<h3>Placed</h3>\n"
    if let problem = placement.problem {
      return text + "<p>Nothing was placed: \(problem.escaped)</p>\n"
    }
    text +=
      "<p>\(placement.agreed) of \(placement.asked) addresses that the program left to the kernel are those that "
      + "<code>.linux</code> chooses, call by call in the recorded order.</p>\n"
    let rows = PlacementAgreement.Request.allCases.compactMap { request in
      placement.counts[request].map { [request.rawValue, "\($0.asked)", "\($0.agreed)"] }
    }
    if !rows.isEmpty { text += table(["call", "asked", "as the kernel"], rows, texts: 1) }
    let reasons = PlacementAgreement.Reason.allCases.compactMap { reason in
      placement.reasons[reason].map { [reason.rawValue, "\($0)"] }
    }
    if !reasons.isEmpty { text += table(["elsewhere, because", "calls"], reasons, texts: 1) }
    return text
  }

  private static func activity(_ report: RecordingReport) -> String {
    if report.activity.rows.isEmpty { return "" }
    var text = "<h3>Where and when</h3>\n<figure class=\"wide\">\(report.activityPicture())"
    text +=
      "<figcaption>Each row is a piece of the address space that was used, low addresses above; a line is a gap. "
    text += "Shade: faults. Squares: calls that changed mappings."
    if report.waits != nil { text += " Rings: true waits for the lock. Crosses: false ones." }
    return text + "</figcaption></figure>\n"
  }

  /// - Parameter texts: how many columns at the left are texts.
  static func table(_ heads: [String], _ rows: [[String]], texts: Int) -> String {
    var text = "<div class=\"scroll\"><table><thead><tr>"
    for (index, head) in heads.enumerated() {
      text += "<th scope=\"col\"\(index < texts ? " class=\"text\"" : "")>\(head.escaped)</th>"
    }
    text += "</tr></thead><tbody>\n"
    for row in rows {
      text += "<tr>"
      for (index, cell) in row.enumerated() {
        text += "<td\(index < texts ? " class=\"text\"" : "")>\(cell.escaped)</td>"
      }
      text += "</tr>\n"
    }
    return text + "</tbody></table></div>\n"
  }
}
