// SPDX-License-Identifier: Apache-2.0
//
// Which earlier steps a step has to wait for: those that touched its pages, unless both only read.
//
// Mechanism: sorted, disjoint segments of the space, each with the step that wrote it last and those that have
// read pages of it since.
// Cost: a binary search and a splice a step; a reader is looked at once by the writer that follows it.

/// The last users of every page, in the order in which steps are added.
struct OverlapOrder {
  /// A step that was added before. 16 bytes: every page that was read since it was written has one.
  struct Mark {
    private let threadNumber: UInt32
    private let stepNumber: UInt32
    /// When the recorded call was over: pairs whose times overlap are ambiguous.
    let exit: UInt64

    init(thread: Int, step: Int, exit: UInt64) {
      threadNumber = UInt32(thread)
      stepNumber = UInt32(step)
      self.exit = exit
    }

    var thread: Int { Int(threadNumber) }
    var step: Int { Int(stepNumber) }
  }

  private struct Reader {
    var page: UInt64
    var mark: Mark
  }

  private struct Segment {
    var start: UInt64
    var end: UInt64
    var writer: Mark?
    var readers: [Reader] = []
  }

  private var segments: [Segment] = []
  /// Dependencies of the step being added: thread and number of steps.
  private var found: [Int: Int] = [:]
  /// Steps whose recorded times overlap those of the step being added. A writer that was cut in pieces is met once a
  /// piece, and is one pair.
  private var ambiguous: Set<[Int]> = []
  private(set) var ambiguousPairs = 0

  /// Adds a step that changes `range` and returns what it has to wait for, by thread.
  mutating func addWriter(
    _ range: Range<UInt64>, _ mark: Mark, enter: UInt64
  ) -> [ReplayPlan.Dependency] {
    let first = firstIndex(endingAfter: range.lowerBound)
    var last = first
    var parts: [Segment] = []
    var tail: Segment?
    while last < segments.count, segments[last].start < range.upperBound {
      let segment = segments[last]
      last += 1
      if let writer = segment.writer { see(writer, mark, enter) }
      for reader in segment.readers where range.contains(reader.page) {
        see(reader.mark, mark, enter)
      }
      if segment.start < range.lowerBound {
        parts.append(Self.part(of: segment, segment.start..<range.lowerBound))
      }
      if segment.end > range.upperBound {
        tail = Self.part(of: segment, range.upperBound..<segment.end)
      }
    }
    parts.append(Segment(start: range.lowerBound, end: range.upperBound, writer: mark))
    if let tail { parts.append(tail) }
    segments.replaceSubrange(first..<last, with: parts)
    return takeFound()
  }

  /// Adds a step that relies on one page.
  mutating func addReader(
    page: UInt64, _ mark: Mark, enter: UInt64
  ) -> [ReplayPlan.Dependency] {
    let index = firstIndex(endingAfter: page)
    if index == segments.count || segments[index].start > page {
      segments.insert(Segment(start: page, end: page + 4096, writer: nil), at: index)
    }
    if let writer = segments[index].writer { see(writer, mark, enter) }
    segments[index].readers.append(Reader(page: page, mark: mark))
    return takeFound()
  }

  private static func part(of segment: Segment, _ range: Range<UInt64>) -> Segment {
    Segment(
      start: range.lowerBound, end: range.upperBound, writer: segment.writer,
      readers: segment.readers.filter { range.contains($0.page) })
  }

  private mutating func see(_ earlier: Mark, _ mark: Mark, _ enter: UInt64) {
    if earlier.thread == mark.thread { return }
    if earlier.exit > enter { ambiguous.insert([earlier.thread, earlier.step]) }
    found[earlier.thread] = max(found[earlier.thread] ?? 0, earlier.step + 1)
  }

  private mutating func takeFound() -> [ReplayPlan.Dependency] {
    if found.isEmpty { return [] }
    if !ambiguous.isEmpty {
      ambiguousPairs += ambiguous.count
      ambiguous.removeAll()
    }
    defer { found.removeAll(keepingCapacity: true) }
    return found.map { ReplayPlan.Dependency(thread: $0.key, steps: $0.value) }
      .sorted { $0.thread < $1.thread }
  }

  /// Index of the first segment whose end lies above `address`.
  private func firstIndex(endingAfter address: UInt64) -> Int {
    var low = 0
    var high = segments.count
    while low < high {
      let middle = (low + high) / 2
      if segments[middle].end > address { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
