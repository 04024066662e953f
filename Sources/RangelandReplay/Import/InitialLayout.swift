// SPDX-License-Identifier: Apache-2.0
//
// Concludes which mappings were there at the start from what the program did with them.
//
// Guarantee: every page that was touched or changed before any call mapped it is in the result;
// nothing in it lies where a call mapped fresh memory first. The rest is a guess (and the recording
// says `inferred`): pages between two touched ones at most 64 KiB apart count as one mapping.
// Cost: O(n log n) in calls and faults.

enum InitialLayout {
  /// Pages that must have been there, and what was done with them.
  private struct Evidence {
    var range: Range<UInt64>
    var protection: Protection
  }

  /// The furthest two touched pages lie apart in one mapping: Linux's fault-around window.
  private static let reach: UInt64 = 64 << 10
  /// Addresses below are never mapped (`vm.mmap_min_addr`); a fault there is a null pointer.
  private static let lowest: UInt64 = 64 << 10

  static func inferred(calls: [RecordedCall], faults: [RecordedFault]) -> [RecordedArea] {
    var known = RangeSet()
    var evidence: [Evidence] = []
    var programBreak: UInt64?
    let order = calls.indices.sorted { (calls[$0].effectTime, $0) < (calls[$1].effectTime, $1) }
    var fault = 0
    func addFaults(before time: UInt64) {
      while fault < faults.count, faults[fault].time < time {
        let page = faults[fault].address & ~4095
        if page >= lowest, !known.contains(page) {
          var protection: Protection = .read
          if faults[fault].isWrite { protection.insert(.write) }
          if faults[fault].isFetch { protection.insert(.execute) }
          evidence.append(Evidence(range: page..<(page + 4096), protection: protection))
        }
        fault += 1
      }
    }
    for index in order {
      let call = calls[index]
      addFaults(before: call.effectTime)
      switch call.effect(programBreak: &programBreak) {
      case .none: break
      case .map(let area): known.insert(area.start..<area.end)
      // It may have been empty: no evidence, but known from now on.
      case .unmap(let range): known.insert(range)
      case .protect(let range, _), .advise(let range):
        for part in known.missing(in: range) where part.lowerBound >= lowest {
          evidence.append(Evidence(range: part, protection: .read))
        }
      case .move(let from, let to, _):
        for part in known.missing(in: from) where part.lowerBound >= lowest {
          evidence.append(Evidence(range: part, protection: [.read, .write]))
        }
        known.insert(from)
        known.insert(to)
      }
    }
    addFaults(before: .max)
    return areas(evidence, known)
  }

  private static func areas(_ evidence: [Evidence], _ known: RangeSet) -> [RecordedArea] {
    var areas: [RecordedArea] = []
    for item in evidence.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
      if let last = areas.last {
        let gap = last.end..<max(last.end, item.range.lowerBound)
        if gap.isEmpty || gap.upperBound - gap.lowerBound <= reach && !known.overlaps(gap) {
          areas[areas.count - 1].end = max(last.end, item.range.upperBound)
          areas[areas.count - 1].protection.formUnion(item.protection)
          continue
        }
      }
      areas.append(
        RecordedArea(
          start: item.range.lowerBound, end: item.range.upperBound, protection: item.protection))
    }
    // The stack is the highest memory that is written and not run.
    if let stack = areas.lastIndex(where: { $0.protection == [.read, .write] }) {
      areas[stack].backing = .stack
    }
    return areas
  }
}

/// Disjoint ranges, ascending; neighbours that touch are one.
struct RangeSet {
  private var ranges: [Range<UInt64>] = []

  /// Index of the first range that ends above `address`.
  private func index(above address: UInt64) -> Int {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound > address { high = middle } else { low = middle + 1 }
    }
    return low
  }

  func contains(_ address: UInt64) -> Bool {
    let index = index(above: address)
    return index < ranges.count && ranges[index].lowerBound <= address
  }

  func overlaps(_ range: Range<UInt64>) -> Bool {
    let index = index(above: range.lowerBound)
    return index < ranges.count && ranges[index].lowerBound < range.upperBound
  }

  mutating func insert(_ range: Range<UInt64>) {
    guard !range.isEmpty else { return }
    var first = index(above: range.lowerBound)
    if first > 0, ranges[first - 1].upperBound == range.lowerBound { first -= 1 }
    var last = first
    var union = range
    while last < ranges.count, ranges[last].lowerBound <= range.upperBound {
      union =
        min(
          union.lowerBound, ranges[last].lowerBound)..<max(
          union.upperBound, ranges[last].upperBound)
      last += 1
    }
    ranges.replaceSubrange(first..<last, with: CollectionOfOne(union))
  }

  /// The parts of `range` that are not in the set.
  func missing(in range: Range<UInt64>) -> [Range<UInt64>] {
    var parts: [Range<UInt64>] = []
    var start = range.lowerBound
    var index = index(above: start)
    while start < range.upperBound {
      guard index < ranges.count, ranges[index].lowerBound < range.upperBound else {
        parts.append(start..<range.upperBound)
        break
      }
      if ranges[index].lowerBound > start { parts.append(start..<ranges[index].lowerBound) }
      start = max(start, ranges[index].upperBound)
      index += 1
    }
    return parts
  }
}
