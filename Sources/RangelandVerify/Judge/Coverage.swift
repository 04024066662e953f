// SPDX-License-Identifier: Apache-2.0
//
// What a run has exercised: calls, answers, and how they met the mappings that were there.

/// Hits of one kind of call, answer and shape.
public struct Coverage: Sendable {
  /// One line of the table.
  public struct Row: Sendable, Hashable {
    /// As its definition names it: `mmap`, `mmap-fixed`, `munmap`, ...
    public var call: String
    /// `ok`, an errno, or a signal's code.
    public var answer: String
    /// What the range held before: `hole`, `whole` (one mapping, exactly), `head`, `tail`, `middle` (of one
    /// mapping), `several`, `gaps` (mappings and holes); `-` where that says nothing.
    public var before: String
    /// Which neighbours the result is one mapping with afterwards: `left`, `right`, `both`, `none`; `-`.
    public var joined: String
  }

  public private(set) var hits: [Row: Int] = [:]

  mutating func add(_ row: Row) { hits[row, default: 0] += 1 }

  mutating func add(_ other: Coverage) {
    for (row, count) in other.hits { hits[row, default: 0] += count }
  }

  /// What a range can hold.
  static let shapes = ["hole", "whole", "head", "tail", "middle", "several", "gaps"]
  static let joints = ["none", "left", "right", "both"]

  /// The answer of a call that wants all of its range mapped.
  static func needsNoHole(_ shape: String) -> String {
    shape == "hole" || shape == "gaps" ? "ENOMEM" : "ok"
  }

  /// What a range holds.
  static func shape(_ mappings: [VerifyMapping], _ start: UInt64, _ end: UInt64) -> String {
    guard let first = mappings.first, let last = mappings.last else { return "hole" }
    var covered: UInt64 = 0
    for mapping in mappings { covered += min(end, mapping.end) - max(start, mapping.start) }
    if covered < end - start { return "gaps" }
    if mappings.count > 1 { return "several" }
    switch (first.start < start, last.end > end) {
    case (false, false): return "whole"
    case (false, true): return "head"
    case (true, false): return "tail"
    case (true, true): return "middle"
    }
  }

  /// Which neighbours the mappings of a range are joined with.
  static func joined(_ mappings: [VerifyMapping], _ start: UInt64, _ end: UInt64) -> String {
    let left = mappings.contains { $0.start < start && $0.end > start }
    let right = mappings.contains { $0.start < end && $0.end > end }
    switch (left, right) {
    case (false, false): return "none"
    case (true, false): return "left"
    case (false, true): return "right"
    case (true, true): return "both"
    }
  }

  // MARK: the verdict

  /// A run of so many operations has to reach the minimum of every requirement; shorter ones are not judged
  /// by their coverage.
  public static let judgedFrom = 20_000

  /// Operations that a run makes at most beyond those that it was asked for when it has not reached them yet. One in four
  /// runs of `judgedFrom` misses one by chance; of runs of this length less than one in 100,000 (docs/verification.md).
  public static let mostExtra = 100_000

  /// Hits that a run of `judgedFrom` operations must have; `nil` = any.
  public struct Requirement: Sendable {
    public var call: String
    public var answer: String
    public var before: String?
    public var joined: String?
    public var minimum: Int
    /// Whether a run of several threads cannot have it: where the space chooses an address depends on all.
    public var needsOneThread = false

    init(
      _ call: String, _ answer: String, before: String? = nil, joined: String? = nil,
      _ minimum: Int
    ) {
      precondition(minimum > 0, "what may be missing is no requirement")
      (self.call, self.answer, self.before, self.joined) = (call, answer, before, joined)
      self.minimum = minimum
    }

    var withOneThread: Requirement {
      var requirement = self
      requirement.needsOneThread = true
      return requirement
    }

    public var name: String {
      [call, answer, before ?? "*", joined ?? "*"].joined(separator: " ")
    }
  }

  /// The requirements of kinds of calls; each is declared with its kind's definition.
  public static func required(
    _ kinds: [VerifyCall.Kind] = VerifyCall.Kind.ordinary, threads: Int = 1
  ) -> [Requirement] {
    kinds.flatMap { $0.definition.required }.filter { threads == 1 || !$0.needsOneThread }
  }

  func count(_ wanted: Requirement) -> Int {
    hits.reduce(0) { sum, hit in
      let row = hit.key
      let fits =
        row.call == wanted.call && row.answer == wanted.answer
        && (wanted.before ?? row.before) == row.before
        && (wanted.joined ?? row.joined) == row.joined
      return fits ? sum + hit.value : sum
    }
  }

  /// The requirements of these kinds, and what this coverage has of each.
  public func minima(
    _ kinds: [VerifyCall.Kind], threads: Int
  ) -> [(name: String, hits: Int, minimum: Int)] {
    Self.required(kinds, threads: threads).map { ($0.name, count($0), $0.minimum) }
  }

  /// Those that are missed.
  public func missing(
    _ kinds: [VerifyCall.Kind], threads: Int
  ) -> [(name: String, hits: Int, minimum: Int)] {
    minima(kinds, threads: threads).filter { $0.hits < $0.minimum }
  }
}
