// SPDX-License-Identifier: Apache-2.0
//
// What a run has exercised: calls, answers, and how they met the mappings that were there.

/// Hits of one kind of call, answer and shape.
public struct Coverage: Sendable {
  /// One line of the table.
  public struct Row: Sendable, Hashable {
    /// `mmap`, `mmap-fixed`, `mmap-noreplace`, `mmap-hint`, or the call's name.
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

  static func name(_ call: VerifyCall, _ address: UInt64) -> String {
    guard call.kind == .mmap else { return call.kind.rawValue }
    if call.isNoReplace { return "mmap-noreplace" }
    if call.isFixed { return "mmap-fixed" }
    return address == 0 ? "mmap" : "mmap-hint"
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

  /// Hits that a run of `judgedFrom` operations must have; `nil` = any.
  public struct Requirement: Sendable {
    public var call: String
    public var answer: String
    public var before: String?
    public var joined: String?
    public var minimum: Int

    init(_ call: String, _ answer: String, _ before: String?, _ joined: String?, _ minimum: Int) {
      (self.call, self.answer, self.before, self.joined) = (call, answer, before, joined)
      self.minimum = minimum
    }

    public var name: String {
      [call, answer, before ?? "*", joined ?? "*"].joined(separator: " ")
    }
  }

  public static let required: [Requirement] = {
    var list: [Requirement] = []
    for before in ["hole", "whole", "head", "tail", "middle", "several", "gaps"] {
      list.append(Requirement("mmap-fixed", "ok", before, nil, 20))
      list.append(Requirement("munmap", "ok", before, nil, 10))
      list.append(
        Requirement(
          "madvise", before == "hole" || before == "gaps" ? "ENOMEM" : "ok", before, nil, 5))
      let protect = before == "hole" || before == "gaps" ? "ENOMEM" : "ok"
      list.append(Requirement("mprotect", protect, before, nil, 20))
      if before != "hole" {
        list.append(Requirement("mmap-noreplace", "EEXIST", before, nil, 2))
      }
    }
    for joined in ["none", "left", "right", "both"] {
      list.append(Requirement("mmap-fixed", "ok", nil, joined, 10))
      list.append(Requirement("mprotect", "ok", nil, joined, 10))
    }
    list += [
      Requirement("mmap", "ok", nil, nil, 100), Requirement("mmap", "ENOMEM", nil, nil, 1),
      Requirement("mmap-hint", "ok", nil, nil, 100),
      Requirement("mmap-hint", "EINVAL", nil, nil, 1),
      Requirement("mmap-noreplace", "ok", nil, nil, 50),
      Requirement("mmap-fixed", "EINVAL", nil, nil, 5),
      Requirement("mmap-fixed", "ENOMEM", nil, nil, 5),
      Requirement("munmap", "EINVAL", nil, nil, 5),
      Requirement("mprotect", "EINVAL", nil, nil, 2), Requirement("madvise", "EINVAL", nil, nil, 2),
      Requirement("load", "ok", nil, nil, 100), Requirement("store", "ok", nil, nil, 100),
    ]
    for access in ["load", "store"] {
      list.append(Requirement(access, "SEGV_MAPERR", nil, nil, 20))
      list.append(Requirement(access, "SEGV_ACCERR", nil, nil, 20))
      list.append(Requirement(access, "SI_KERNEL", nil, nil, 1))
    }
    return list
  }()

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

  /// The requirements that this coverage misses.
  public var missing: [(name: String, hits: Int, minimum: Int)] {
    Self.required.compactMap { wanted in
      let found = count(wanted)
      return found < wanted.minimum ? (wanted.name, found, wanted.minimum) : nil
    }
  }
}
