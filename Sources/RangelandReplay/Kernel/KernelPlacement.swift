// SPDX-License-Identifier: Apache-2.0
//
// Where the recorded addresses go in the helper process, which has things of its own at some of them.
//
// Guarantee: what lay side by side lies side by side, at the same distance if that was under 16 MiB, and at the same
//   place modulo 2 MiB; nothing else comes nearer than 2 MiB (a growing stack keeps its gap).
// Mechanism: all pages that the plan names form stretches; a stretch moves as a whole into the window that is free
//   in the helper. If they are too long together, the longest stay out.

import CKernelProtocol
import Rangeland

struct KernelPlacement {
  /// Stretches less than this apart move together, in bytes.
  static let togetherness: UInt64 = 16 << 20
  private static let hugePage: UInt64 = 2 << 20
  private static let manyRanges = 1 << 20

  /// Ascending, and where each begins in the helper.
  private var stretches: [Range<UInt64>] = []
  private var places: [UInt64] = []
  /// The recorded heap, from the page where it begins to the highest break; nil if there is none.
  let heap: Range<UInt64>?
  /// Where it begins in the helper: known when the helper runs.
  var heapPlace: UInt64?

  init(_ plan: ReplayPlan) {
    self.init(plan, window: UInt64(KR_WINDOW_START)..<UInt64(KR_WINDOW_END))
  }

  /// - Parameter window: what is free in the helper.
  init(_ plan: ReplayPlan, window: Range<UInt64>) {
    heap = Self.heap(plan)
    var named: [Range<UInt64>] = []
    for step in plan.setup { named += Self.ranges(step, plan) }
    for step in plan.steps where step.action != .fault {
      named += Self.ranges(step, plan)
      // Programs use their addresses again and again.
      if named.count == Self.manyRanges { named = Self.merged(named) }
    }
    var merged = Self.merged(named)
    // Most faults lie in a mapping: only the others add pages.
    var outside: [Range<UInt64>] = []
    for step in plan.steps where step.action == .fault {
      let page = step.start & ~4095
      if Self.index(of: page..<page + 4096, in: merged) == nil {
        outside.append(page..<page + 4096)
      }
    }
    if !outside.isEmpty { merged = Self.merged(merged + outside) }
    place(merged.flatMap { Self.without(heap, $0) }, window)
  }

  private mutating func place(_ ranges: [Range<UInt64>], _ window: Range<UInt64>) {
    // Each takes its length, the way to its place modulo 2 MiB, and the distance.
    func room(_ range: Range<UInt64>) -> UInt64 {
      range.upperBound - range.lowerBound + 2 * Self.hugePage
    }
    var left = window.upperBound - window.lowerBound
    var chosen: [Range<UInt64>] = []
    for range in ranges.sorted(by: { room($0) < room($1) }) where room(range) <= left {
      left -= room(range)
      chosen.append(range)
    }
    var end = window.lowerBound
    for range in chosen.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      let start =
        (end + Self.hugePage - 1) & ~(Self.hugePage - 1) + range.lowerBound % Self.hugePage
      stretches.append(range)
      places.append(start)
      end = start + (range.upperBound - range.lowerBound) + Self.hugePage
    }
  }

  /// Where a range begins in the helper; nil if it has no place there as a whole.
  func place(of range: Range<UInt64>) -> UInt64? {
    if let heap, range.overlaps(heap) {
      guard let heapPlace, heap.contains(range.lowerBound), range.upperBound <= heap.upperBound
      else { return nil }
      return heapPlace + (range.lowerBound - heap.lowerBound)
    }
    guard let index = Self.index(of: range, in: stretches) else { return nil }
    return places[index] + (range.lowerBound - stretches[index].lowerBound)
  }

  // MARK: what a plan names

  /// The pages that a step works on; none for one that works on all.
  private static func ranges(_ step: ReplayStep, _ plan: ReplayPlan) -> [Range<UInt64>] {
    switch step.action {
    case .spawn, .fork, .setHeap: return []
    case .call:
      let call = plan.calls[Int(step.call)]
      switch call.call {
      case .mlockall, .munlockall, .brk: return []
      case .mremap:
        return [pages(call.arguments.first, call.arguments.second), step.start..<step.end]
      default: return [step.start..<step.end]
      }
    default: return [step.start..<step.end]
    }
  }

  /// Whole pages, at least one.
  static func pages(_ start: UInt64, _ length: UInt64) -> Range<UInt64> {
    let first = start & ~4095
    return first..<max(first + 4096, (start &+ length &+ 4095) & ~4095)
  }

  private static func heap(_ plan: ReplayPlan) -> Range<UInt64>? {
    guard let step = plan.setup.first(where: { $0.action == .setHeap }), step.start % 4096 == 0
    else { return nil }
    let highest = plan.calls.lazy.filter { $0.call == .brk }.map(\.result).max() ?? 0
    return pages(step.start, max(highest, step.start) - step.start)
  }

  // MARK: ranges

  private static func merged(_ ranges: [Range<UInt64>]) -> [Range<UInt64>] {
    var result: [Range<UInt64>] = []
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) where !range.isEmpty {
      if let last = result.last, range.lowerBound < last.upperBound + togetherness {
        result[result.count - 1] = last.lowerBound..<max(last.upperBound, range.upperBound)
      } else {
        result.append(range)
      }
    }
    return result
  }

  private static func without(_ heap: Range<UInt64>?, _ range: Range<UInt64>) -> [Range<UInt64>] {
    guard let heap, heap.overlaps(range) else { return [range] }
    return [
      range.lowerBound..<max(range.lowerBound, heap.lowerBound),
      min(range.upperBound, heap.upperBound)..<range.upperBound,
    ].filter { !$0.isEmpty }
  }

  /// The one of `ranges`, which are ascending, that holds `range`.
  private static func index(of range: Range<UInt64>, in ranges: [Range<UInt64>]) -> Int? {
    var low = 0
    var high = ranges.count
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound <= range.lowerBound { low = middle + 1 } else { high = middle }
    }
    guard low < ranges.count, ranges[low].lowerBound <= range.lowerBound,
      range.upperBound <= ranges[low].upperBound
    else { return nil }
    return low
  }
}
