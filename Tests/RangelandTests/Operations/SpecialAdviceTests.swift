// SPDX-License-Identifier: Apache-2.0
//
// Madvise on special mappings: what Linux 6.18 answers for the pages of its own [vvar] and [vdso].

import SystemPackage
import Testing

@testable import Rangeland

@Suite struct SpecialAdviceTests {
  /// Answers to advice for all of a mapping and for its first page alone, in spaces of their own.
  struct Row: Sendable {
    var advice: Advice
    /// A device, as [vvar] (`VM_IO`, `VM_PFNMAP`, `VM_DONTDUMP`), whose pages may only be read.
    var device: [Int32]
    /// Memory, as [vdso], which may get any right.
    var memory: [Int32]

    init(_ advice: Advice, _ device: [Int32], _ memory: [Int32]) {
      (self.advice, self.device, self.memory) = (advice, device, memory)
    }
  }

  /// A part that would be cut off is refused; advice that changes nothing cuts nothing.
  static let rows = [
    Row(.normal, [0, 0], [0, 0]), Row(.random, [0, 22], [0, 22]),
    Row(.sequential, [0, 22], [0, 22]), Row(.willNeed, [0, 0], [0, 0]),
    Row(.dontNeed, [22, 22], [0, 0]), Row(.free, [22, 22], [22, 22]),
    Row(.remove, [22, 22], [22, 22]), Row(.dontFork, [0, 22], [0, 22]),
    Row(.doFork, [22, 22], [0, 0]), Row(.mergeable, [0, 0], [0, 0]),
    Row(.unmergeable, [0, 0], [0, 0]), Row(.hugePage, [0, 22], [0, 22]),
    Row(.noHugePage, [0, 22], [0, 22]), Row(.dontDump, [0, 0], [0, 22]),
    Row(.doDump, [22, 22], [22, 22]), Row(.wipeOnFork, [0, 22], [0, 22]),
    Row(.keepOnFork, [0, 0], [0, 0]), Row(.cold, [22, 22], [0, 0]),
    Row(.pageOut, [22, 22], [0, 0]), Row(.populateRead, [22, 22], [0, 0]),
    Row(.populateWrite, [22, 22], [22, 22]), Row(.dontNeedLocked, [22, 22], [0, 0]),
    Row(.collapse, [22, 22], [22, 22]), Row(.installGuard, [22, 22], [22, 22]),
    Row(.removeGuard, [22, 22], [22, 22]),
  ]

  @Test func `every advice has a row`() {
    #expect(Set(Self.rows.map(\.advice)) == Set(Advice.allCases))
  }

  @Test(arguments: rows, LockPolicy.allCases)
  func `P1 advice is answered as for the kernel's own special mappings`(
    _ row: Row, _ policy: LockPolicy
  ) throws {
    for (kind, expected) in [
      (SpecialMapping.Kind.device, row.device), (.memory, row.memory),
    ] {
      for (i, pages) in [2, 1].enumerated() as EnumeratedSequence<[UInt64]> {
        let space = try makeSpace(policy)
        let special = SpecialMapping(
          name: "[special]", kind: kind, content: .fault { _, _ in true })
        _ = try space.insert(
          special, length: 2 * page, at: .fixed(base),
          protection: kind == .device ? .read : [.read, .execute],
          allowed: kind == .device ? .read : .all)
        let answer = errno { try space.advise(row.advice, at: base, length: pages * page) }
        #expect(answer?.rawValue ?? 0 == expected[i], "\(kind), \(pages) pages")
        #expect(space.mappings().count == 1)
      }
    }
  }
}
