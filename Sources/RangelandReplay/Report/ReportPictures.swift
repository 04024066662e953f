// SPDX-License-Identifier: Apache-2.0
//
// The pictures of a page: the map of addresses and time, the lengths of waits, the curves over processors.

import Foundation
import Rangeland

extension RecordingReport {
  // MARK: addresses and time

  private static let mapLeft = 118.0
  private static let mapWidth = 720.0

  /// What happened where: shades for faults, squares for calls that changed mappings, rings for true waits and crosses
  /// for false ones.
  func activityPicture() -> String {
    let rowHeight = 7.0
    let height = Double(activity.rows.count) * rowHeight
    var svg = SVG(
      width: Self.mapLeft + Self.mapWidth + 12, height: height + 42,
      title: "Activity by address and time of \(name)")
    let top = 8.0
    let cell = Self.mapWidth / Double(ActivityMap.columns)
    svg.rectangle(Self.mapLeft, top, Self.mapWidth, max(height, 1), "frame")
    let busiest = activity.rows.flatMap(\.faults).max() ?? 0
    // Shades by powers, so that a single fault can be seen beside thousands.
    let steps = [1.0, pow(Double(max(busiest, 1)), 0.34), pow(Double(max(busiest, 1)), 0.67)]
    var shades = ["", "", ""]
    var changes = ""
    var rings = ""
    var crosses = ""
    for (index, row) in activity.rows.enumerated() {
      let y = top + Double(index) * rowHeight
      if row.isAfterGap && index > 0 {
        svg.line(Self.mapLeft - 6, y, Self.mapLeft + Self.mapWidth, y, "gap")
      }
      var column = 0
      while column < ActivityMap.columns {
        let shade = Self.shade(row.faults[column], steps)
        var end = column + 1
        while end < ActivityMap.columns, Self.shade(row.faults[end], steps) == shade { end += 1 }
        if let shade {
          let (x, width) = (Self.mapLeft + Double(column) * cell, Double(end - column) * cell)
          shades[shade] +=
            "M\(SVG.number(x)) \(SVG.number(y))h\(SVG.number(width))v\(SVG.number(rowHeight))h-\(SVG.number(width))z"
        }
        column = end
      }
      for column in 0..<ActivityMap.columns {
        let x = Self.mapLeft + (Double(column) + 0.5) * cell
        let middle = y + rowHeight / 2
        if row.changes[column] > 0 {
          changes += "M\(SVG.number(x - 1.2)) \(SVG.number(middle - 1.2))h2.4v2.4h-2.4z"
        }
        if row.trueWaits[column] > 0 {
          rings +=
            "M\(SVG.number(x - 3)) \(SVG.number(middle))a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"
        }
        if row.falseWaits[column] > 0 {
          crosses +=
            "M\(SVG.number(x - 2.6)) \(SVG.number(middle - 2.6))l5.2 5.2m0-5.2l-5.2 5.2"
        }
      }
    }
    for (index, data) in shades.enumerated() { svg.path(data, "faults\(index)") }
    svg.path(changes, "changes")
    // In the colour of the ground first: they lie on shades.
    svg.path(rings, "halo")
    svg.path(crosses, "halo")
    svg.path(rings, "ring")
    svg.path(crosses, "cross")
    var lastLabel = -100.0
    for (index, row) in activity.rows.enumerated() where row.isAfterGap || index % 12 == 0 {
      var y = top + Double(index) * rowHeight + 9
      // What comes after a gap has its label, if a little below.
      if row.isAfterGap { y = max(y, lastLabel + 11) }
      if y - lastLabel < 11 { continue }
      svg.label(hex(row.address), Self.mapLeft - 8, y, anchor: "end", "label mono")
      lastLabel = y
    }
    for tick in 0...4 {
      let x = Self.mapLeft + Self.mapWidth * Double(tick) / 4
      svg.line(x, top + height, x, top + height + 4)
      svg.label(
        Verdict.seconds(activity.duration * UInt64(tick) / 4), x, top + height + 18,
        anchor: tick == 0 ? "start" : tick == 4 ? "end" : "middle")
    }
    return svg.text
  }

  private static func shade(_ faults: UInt32, _ steps: [Double]) -> Int? {
    faults == 0 ? nil : Double(faults) > steps[2] ? 2 : Double(faults) > steps[1] ? 1 : 0
  }

  // MARK: curves

  /// Run time by processors, a line for each policy.
  func scalingPicture() -> String {
    let (left, top, width, height) = (64.0, 14.0, 440.0, 230.0)
    var svg = SVG(
      width: left + width + 110, height: top + height + 44,
      title: "Simulated run time of \(name) by processors")
    var most = Double(runs.map(\.nanoseconds).max() ?? 1)
    let recorded = Double(program.recordedNanoseconds)
    // Far above all others it would press them together at the bottom.
    if recorded < 3 * most { most = max(most, recorded) }
    let scale = Self.roundedUp(most)
    func y(_ nanoseconds: UInt64) -> Double { top + height * (1 - Double(nanoseconds) / scale) }
    for tick in 0...4 {
      let value = scale * Double(tick) / 4
      let position = top + height * (1 - Double(tick) / 4)
      svg.line(left, position, left + width, position, "grid")
      svg.label(Verdict.seconds(UInt64(value)), left - 8, position + 4, anchor: "end")
    }
    let cores = cores
    func x(_ number: Int) -> Double {
      cores.count < 2
        ? left + width / 2
        : left + 22 + (width - 44) * (log2(Double(number)) - log2(Double(cores[0])))
          / (log2(Double(cores[cores.count - 1])) - log2(Double(cores[0])))
    }
    for number in cores {
      svg.line(x(number), top + height, x(number), top + height + 4)
      svg.label("\(number)", x(number), top + height + 18, anchor: "middle")
    }
    svg.label(
      "virtual processors", left + width / 2, top + height + 36, anchor: "middle", "label soft")
    if recorded > 0, recorded <= scale {
      let position = y(program.recordedNanoseconds)
      svg.line(left, position, left + width, position, "recorded")
      svg.label("recorded", left + 4, position - 4, "label soft")
    }
    // Labels at the right end, moved apart where lines meet.
    var labels = policies.compactMap { policy -> (policy: LockPolicy, y: Double)? in
      guard let last = cores.last, let run = run(policy, last) else { return nil }
      return (policy, y(run.nanoseconds))
    }.sorted { $0.y < $1.y }
    for index in labels.indices.dropFirst() {
      labels[index].y = max(labels[index].y, labels[index - 1].y + 14)
    }
    if let last = labels.last, last.y > top + height {
      for index in labels.indices { labels[index].y -= last.y - (top + height) }
    }
    // Where lines meet their marks stand side by side.
    func shift(_ policy: LockPolicy, _ number: Int, _ height: Double) -> Double {
      let alike = policies.filter { other in
        run(other, number).map { abs(y($0.nanoseconds) - height) < 7 } ?? false
      }
      return (Double(alike.firstIndex(of: policy) ?? 0) - Double(alike.count - 1) / 2) * 9
    }
    for policy in policies {
      let points = cores.compactMap { number in
        run(policy, number).map { (number, x(number), y($0.nanoseconds), $0) }
      }
      svg.path(
        points.enumerated().map {
          "\($0.offset == 0 ? "M" : "L")\(SVG.number($0.element.1)) \(SVG.number($0.element.2))"
        }.joined(), "curve \(policy.rawValue)")
      for point in points {
        svg.mark(
          policy, point.1 + shift(policy, point.0, point.2), point.2,
          title:
            ".\(policy.rawValue), \(point.0) processors: \(Verdict.seconds(point.3.nanoseconds))")
      }
    }
    for label in labels {
      svg.mark(label.policy, left + width + 14, label.y, title: label.policy.rawValue)
      svg.label(".\(label.policy.rawValue)", left + width + 24, label.y + 4)
    }
    return svg.text
  }

  /// The next of 1, 2, 5, 10, 20, ... that is not less.
  private static func roundedUp(_ value: Double) -> Double {
    let power = pow(10, floor(log10(max(value, 1))))
    return [1.0, 2, 2.5, 5, 10].map { $0 * power }.first { $0 >= value * 1.02 } ?? 10 * power
  }

  // MARK: lengths

  /// How long waits were: as recorded, and of each policy on `number` processors.
  func lengthsPicture(processors number: Int) -> String {
    var rows: [(name: String, style: String, lengths: [UInt64])] = []
    if let waits { rows.append(("recorded", "recordedBar", waits.lengths)) }
    for policy in policies {
      if let run = run(policy, number) {
        rows.append((".\(policy.rawValue)", policy.rawValue, run.waitLengths))
      }
    }
    let used = rows.flatMap { row in row.lengths.indices.filter { row.lengths[$0] > 0 } }
    let first = min(used.min() ?? 8, 8)
    let last = max(used.max() ?? 20, 20)
    let (left, rowHeight, width) = (96.0, 50.0, 440.0)
    let bar = width / Double(last - first + 1)
    var svg = SVG(
      width: left + width + 104, height: Double(rows.count) * rowHeight + 40,
      title: "Lengths of waits of \(name)")
    for (index, row) in rows.enumerated() {
      let bottom = Double(index + 1) * rowHeight
      svg.line(left, bottom, left + width, bottom)
      svg.label(row.name, left - 8, bottom - 8, anchor: "end")
      let most = Double(row.lengths.max() ?? 0)
      let total = row.lengths.reduce(0, +)
      svg.label(
        total == 0 ? "no wait" : total == 1 ? "1 wait" : "\(total) waits", left + width + 6,
        bottom - 8, "label soft")
      for power in first...last where power < row.lengths.count && row.lengths[power] > 0 {
        // A count of one can be seen beside a count of a million.
        let height = max(
          3, (rowHeight - 14) * log2(1 + Double(row.lengths[power])) / log2(1 + most))
        svg.rectangle(
          left + Double(power - first) * bar + 1, bottom - height, max(1, bar - 2), height,
          "bar \(row.style)",
          title: "\(row.lengths[power]) waits of \(Verdict.seconds(1 << UInt64(power))) and more")
      }
    }
    let bottom = Double(rows.count) * rowHeight
    for power in first...last where power % 10 == 0 || power == first {
      let x = left + Double(power - first) * bar
      svg.line(x, bottom, x, bottom + 4)
      svg.label(Verdict.seconds(1 << UInt64(power)), x, bottom + 18, anchor: "middle")
    }
    svg.label(
      "length of a wait (bars by powers of two; their heights by powers, too)", left + width / 2,
      bottom + 34, anchor: "middle", "label soft")
    return svg.text
  }
}
