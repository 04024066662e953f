// SPDX-License-Identifier: Apache-2.0
//
// A simple layout: sorted, disjoint mappings to which effects are applied.
//
// Guarantee: after each step the areas are ascending and disjoint, and neighbours that continue
// one another are one. It knows no anonymous identity, so it merges a little more than the kernel.
// Cost: a binary search and a splice of one array.

/// The mappings of a program at one moment.
public struct LayoutModel: Sendable {
  /// Ascending and disjoint.
  public private(set) var areas: [RecordedArea]
  /// Where the break stands; nil before the first `brk`.
  private(set) var programBreak: UInt64?
  /// The most areas there were at any moment.
  public private(set) var peakCount: Int

  /// The furthest a stack grows below its mapping: Linux's default limit of 8 MiB.
  static let stackLimit: UInt64 = 8 << 20

  /// - Precondition: `areas` are ascending and disjoint.
  public init(_ areas: [RecordedArea] = []) {
    self.areas = areas
    peakCount = areas.count
  }

  /// The area that holds `address`.
  public func area(at address: UInt64) -> RecordedArea? {
    let index = firstIndex(endingAfter: address)
    return index < areas.count && areas[index].start <= address ? areas[index] : nil
  }

  /// Whether every page of `range` is mapped.
  public func covers(_ range: Range<UInt64>) -> Bool { firstHole(in: range) == nil }

  /// Where the first unmapped page of `range` begins; nil when all is mapped.
  public func firstHole(in range: Range<UInt64>) -> UInt64? {
    var next = range.lowerBound
    var index = firstIndex(endingAfter: next)
    while next < range.upperBound {
      guard index < areas.count, areas[index].start <= next else { return next }
      next = areas[index].end
      index += 1
    }
    return nil
  }

  /// Whether no page of `range` is mapped.
  public func isFree(_ range: Range<UInt64>) -> Bool {
    let index = firstIndex(endingAfter: range.lowerBound)
    return index == areas.count || areas[index].start >= range.upperBound
  }

  /// The mapped pieces of `range`, ascending.
  public func pieces(of range: Range<UInt64>) -> [RecordedArea] {
    var pieces: [RecordedArea] = []
    var index = firstIndex(endingAfter: range.lowerBound)
    while index < areas.count, areas[index].start < range.upperBound {
      let area = areas[index]
      pieces.append(
        area.clipped(to: max(area.start, range.lowerBound)..<min(area.end, range.upperBound)))
      index += 1
    }
    return pieces
  }

  /// Applies what `call` did and returns it.
  @discardableResult
  public mutating func apply(_ call: RecordedCall) -> LayoutEffect {
    let effect = call.effect(programBreak: &programBreak)
    apply(effect)
    return effect
  }

  public mutating func apply(_ effect: LayoutEffect) {
    switch effect {
    case .none, .advise: return
    case .map(let area): insert(area)
    case .unmap(let range): remove(range)
    case .protect(let range, let protection): protect(range, protection)
    case .move(let from, let to, let keepsSource): move(from, to, keepsSource)
    }
    peakCount = max(peakCount, areas.count)
  }

  /// The pages that a stack has to grow by for this fault; nil when no stack stands right above.
  public func stackGrowth(for fault: RecordedFault) -> Range<UInt64>? {
    let page = fault.address & ~4095
    let index = firstIndex(endingAfter: page)
    guard index < areas.count, areas[index].backing == .stack, areas[index].start > page,
      areas[index].start - page <= Self.stackLimit
    else { return nil }
    return page..<areas[index].start
  }

  /// Grows the stack if this fault made it grow; returns whether it did.
  @discardableResult
  public mutating func grow(for fault: RecordedFault) -> Bool {
    guard let growth = stackGrowth(for: fault) else { return false }
    areas[firstIndex(endingAfter: growth.upperBound)].start = growth.lowerBound
    return true
  }

  /// Index of the first area whose end lies above `address`.
  private func firstIndex(endingAfter address: UInt64) -> Int {
    var low = 0
    var high = areas.count
    while low < high {
      let middle = (low + high) / 2
      if areas[middle].end > address { high = middle } else { low = middle + 1 }
    }
    return low
  }

  /// Replaces what lies in `range` by what `change` makes of it.
  private mutating func rewrite(
    _ range: Range<UInt64>, _ change: (RecordedArea) -> RecordedArea?
  ) {
    guard !range.isEmpty else { return }
    let first = firstIndex(endingAfter: range.lowerBound)
    var last = first
    var parts: [RecordedArea] = []
    while last < areas.count, areas[last].start < range.upperBound {
      let area = areas[last]
      let inside = max(area.start, range.lowerBound)..<min(area.end, range.upperBound)
      if area.start < inside.lowerBound {
        append(area.clipped(to: area.start..<inside.lowerBound), to: &parts)
      }
      if let changed = change(area.clipped(to: inside)) { append(changed, to: &parts) }
      if inside.upperBound < area.end {
        append(area.clipped(to: inside.upperBound..<area.end), to: &parts)
      }
      last += 1
    }
    splice(first..<last, parts)
  }

  private func append(_ area: RecordedArea, to parts: inout [RecordedArea]) {
    if let previous = parts.last, previous.isContinued(by: area) {
      parts[parts.count - 1].end = area.end
    } else {
      parts.append(area)
    }
  }

  /// Puts `parts` in place of the areas at `indices` and merges at both seams.
  private mutating func splice(_ indices: Range<Int>, _ parts: [RecordedArea]) {
    var indices = indices
    var merged: [RecordedArea] = []
    if indices.lowerBound > 0 {
      indices = (indices.lowerBound - 1)..<indices.upperBound
      merged.append(areas[indices.lowerBound])
    }
    for part in parts { append(part, to: &merged) }
    if indices.upperBound < areas.count {
      append(areas[indices.upperBound], to: &merged)
      indices = indices.lowerBound..<(indices.upperBound + 1)
    }
    areas.replaceSubrange(indices, with: merged)
  }

  private mutating func remove(_ range: Range<UInt64>) { rewrite(range) { _ in nil } }

  private mutating func insert(_ area: RecordedArea) {
    guard area.start < area.end else { return }
    remove(area.start..<area.end)
    let index = firstIndex(endingAfter: area.start)
    splice(index..<index, [area])
  }

  private mutating func protect(_ range: Range<UInt64>, _ protection: Protection) {
    rewrite(range) { area in
      var changed = area
      changed.protection = protection
      return changed
    }
  }

  private mutating func move(_ from: Range<UInt64>, _ to: Range<UInt64>, _ keepsSource: Bool) {
    guard var moved = area(at: from.lowerBound) else {
      // What was moved is unknown: private memory is the likeliest.
      insert(
        RecordedArea(start: to.lowerBound, end: to.upperBound, protection: [.read, .write]))
      return
    }
    if case .file(let file, let offset) = moved.backing {
      moved.backing = .file(file, offset: offset &+ (from.lowerBound &- moved.start))
    }
    moved.start = to.lowerBound
    moved.end = to.upperBound
    if !keepsSource { remove(from) }
    insert(moved)
  }
}
