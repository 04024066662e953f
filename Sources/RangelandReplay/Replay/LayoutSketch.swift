// SPDX-License-Identifier: Apache-2.0
//
// What two layouts must have in common: which pages are mapped, with which rights, shared or not.
//
// Where one mapping ends and the next begins is not compared: the kernel's merging depends on the order of first
// faults, which a replay leaves free.

import Rangeland

struct LayoutSketch: Equatable {
  struct Run: Equatable {
    var start: UInt64
    var end: UInt64
    var protection: UInt32
    var isShared: Bool
  }

  private(set) var runs: [Run] = []

  init(_ areas: [RecordedArea]) {
    for area in areas {
      add(
        Run(
          start: area.start, end: area.end, protection: UInt32(area.protection.rawValue),
          isShared: area.isShared))
    }
  }

  init(_ mappings: [MappingInfo]) {
    for mapping in mappings {
      add(
        Run(
          start: mapping.range.start, end: mapping.range.end,
          protection: mapping.protection.rawValue, isShared: mapping.sharing == .shared))
    }
  }

  private mutating func add(_ run: Run) {
    if let last = runs.last, last.end == run.start, last.protection == run.protection,
      last.isShared == run.isShared
    {
      runs[runs.count - 1].end = run.end
    } else {
      runs.append(run)
    }
  }

  /// The first place where `found` differs, in words.
  func firstDifference(from found: LayoutSketch) -> String? {
    if self == found { return nil }
    let pair = zip(runs, found.runs).first { $0 != $1 }
    let expected = pair?.0 ?? runs.dropFirst(found.runs.count).first
    let other = pair?.1 ?? found.runs.dropFirst(runs.count).first
    func text(_ run: Run?) -> String {
      run.map { "\(hex($0.start))-\(hex($0.end)) with rights \($0.protection)" } ?? "nothing"
    }
    return "the mappings at the end differ: \(text(other)) is there, \(text(expected)) was recorded"
  }
}
