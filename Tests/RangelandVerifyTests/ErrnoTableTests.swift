// SPDX-License-Identifier: Apache-2.0
//
// The errno tables (C1, C2, C3 and the rows of mprotect and madvise): each row is made on both sides, through the
// helper process, and everything is compared after it.

import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandVerify

/// Rows of a call: its addresses and lengths around every border that it checks, with some rights and flags.
private struct ErrnoTable: Sendable, CustomTestStringConvertible {
  var kind: VerifyCall.Kind
  var protections: [UInt64] = [0]
  var flags: [UInt64] = [0]
  /// Calls before the row's, besides those that make the layout.
  var before: [String] = []

  var testDescription: String {
    "\(kind) prot=\(protections) flags=\(flags.map { String($0, radix: 16) })"
      + before.map { ", after \($0)" }.joined()
  }

  static let all: [ErrnoTable] = [
    ErrnoTable(kind: .munmap),
    ErrnoTable(kind: .mprotect, protections: [0, 1, 7]),
    // Unknown advice, and whatever a space knows.
    ErrnoTable(kind: .madvise, flags: [4]),
    ErrnoTable(kind: .msync, flags: [0, 1, 2, 4, 5, 8]),
    // MAP_FIXED, MAP_FIXED_NOREPLACE, both, and hints, of private and of shared memory.
    ErrnoTable(kind: .mmap, protections: [1], flags: [0x32, 0x31]),
    ErrnoTable(kind: .mmap, protections: [1], flags: [0x10_0022, 0x10_0021, 0x10_0032]),
    ErrnoTable(kind: .mmap, protections: [3], flags: [0x22, 0x21]),
    // No type, MAP_SHARED_VALIDATE, flags that nobody knows, MAP_GROWSDOWN of shared memory, MAP_HUGETLB.
    ErrnoTable(
      kind: .mmap, protections: [3, 8],
      flags: [0x30, 0x33, 0x400_0033, 0x400_0032, 0x131, 0x4_0022]),
    ErrnoTable(kind: .mlock), ErrnoTable(kind: .mlock2, flags: [0, 1, 2]),
    ErrnoTable(kind: .munlock), ErrnoTable(kind: .mlockall, flags: [0, 1, 2, 4, 6, 8]),
    ErrnoTable(kind: .brk),
    ErrnoTable(kind: .mlock, before: ["setrlimit 0x8 0x0"]),
    ErrnoTable(kind: .mlock2, flags: [1, 2], before: ["setrlimit 0x8 0x0"]),
    ErrnoTable(kind: .mlockall, flags: [0, 1, 2, 4], before: ["setrlimit 0x8 0x0"]),
    // Some of it is locked, and the limit is a page more.
    ErrnoTable(
      kind: .mlock, before: ["mlock low+0x8000 0x1000", "setrlimit 0x8 0x2"]),
    // MAP_LOCKED where nothing, and where one page may be locked.
    ErrnoTable(
      kind: .mmap, protections: [3], flags: [0x2032, 0x10_2022, 0x2022, 0x2030, 0x2131],
      before: ["setrlimit 0x8 0x0"]),
    ErrnoTable(
      kind: .mmap, protections: [3], flags: [0x2032, 0x10_2022, 0x2022, 0x2030, 0x8022],
      before: ["setrlimit 0x8 0x1"]),
    // New mappings are locked, and the limit is three pages.
    ErrnoTable(
      kind: .mmap, protections: [3], flags: [0x32, 0x22],
      before: ["mlockall 0x0 0x0 flags=2", "setrlimit 0x8 0x3"]),
    ErrnoTable(kind: .brk, before: ["mlockall 0x0 0x0 flags=2", "setrlimit 0x8 0x3"]),
  ]

  /// Each row of these ends with a helper of its own, which takes some milliseconds: fewer of them.
  static let sealed: [ErrnoTable] = [
    ErrnoTable(kind: .mseal, flags: [0, 1]),
    ErrnoTable(kind: .munmap, before: ["mseal low+0xa000 0x1000 flags=0"]),
    ErrnoTable(kind: .mprotect, protections: [1], before: ["mseal low+0xa000 0x1000 flags=0"]),
    ErrnoTable(kind: .madvise, flags: [4], before: ["mseal low+0xa000 0x1000 flags=0"]),
    ErrnoTable(
      kind: .mmap, protections: [1], flags: [0x32], before: ["mseal low+0xa000 0x1000 flags=0"]),
  ]

  /// The row's range on either side, and good memory on the other; pieces: 1 and 1, none, too many, 2 and 3. There are
  /// many: fewer of them.
  static let transfers: [ErrnoTable] = [
    ErrnoTable(kind: .processRead, protections: [0x1_0001, 0x3_0002]),
    ErrnoTable(kind: .processRead, protections: [0x1_0000, 0x401_0001], flags: [0, 1]),
    ErrnoTable(kind: .processWrite, protections: [0x1_0001, 0x3_0002, 0x401_0401]),
  ]

  private static let page: UInt64 = 4096
  private static let end = Address.spaceEnd
  private static let max = UInt64.max

  /// In the low window, whose pages 8 to 12 are: rw, hole, r, none, rw.
  static let layout = [
    "mmap low+0x8000 0x1000 prot=3 flags=0x32", "mmap low+0xa000 0x1000 prot=1 flags=0x32",
    "mmap low+0xb000 0x1000 prot=0 flags=0x32", "mmap low+0xc000 0x1000 prot=3 flags=0x32",
  ]

  private static let addresses: [VerifyAddress] =
    [0, 1, page - 1, page, 4 * page].map { VerifyAddress(.low, 8 * page + $0) }
    + [
      0, 1, page, end - 2 * page, end - page, end - page + 1, end - 1, end, end + 1, end + page,
      1 << 47, 1 << 63, max - page + 1, max - 1, max,
    ].map { VerifyAddress(nil, $0) }

  private static let lengths: [UInt64] = [
    0, 1, page - 1, page, page + 1, 3 * page, 6 * page, end - page, end, end + 1, end + page,
    1 << 47, 1 << 63, max - page, max - page + 1, max - page + 2, max - 1, max,
  ]

  /// The rows that stay in the windows and that a space has words for.
  func rows(_ windows: [KernelProcess.AddressPair]) -> [VerifyCall] {
    var rows: [VerifyCall] = []
    let ofHeap = [0, 1, Self.page - 1, Self.page, Self.page + 1, 9 * Self.page].map {
      VerifyAddress(.heap, $0)
    }
    for address in Self.addresses + (kind == .brk ? ofHeap : []) {
      for length in Self.lengths {
        for protection in protections {
          for flags in flags {
            // An address is all that a break has, and mlockall has none.
            if kind == .brk && length != Self.lengths[0] { continue }
            if kind == .mlockall && (length, address) != (Self.lengths[0], Self.addresses[0]) {
              continue
            }
            var row = VerifyCall(
              kind, kind == .mlockall ? VerifyAddress(nil, 0) : address, length,
              protection: protection, flags: flags)
            func add() {
              if kind.definition.isKnown(row), windows.isHarmless(row) { rows.append(row) }
            }
            if kind.isTransfer {
              // The row's range on either side, and good memory on the other.
              let good = (VerifyAddress(.low, 8 * Self.page), Self.page)
              (row.target, row.newLength) = good
              row.address =
                row.address == good.0 ? VerifyAddress(.low, 12 * Self.page) : row.address
              add()
              (row.target, row.newLength) = (address, length)
              (row.address, row.length) = (VerifyAddress(.low, 12 * Self.page), Self.page)
            }
            add()
          }
        }
      }
    }
    return rows
  }
}

@Suite(
  .enabled(
    if: !KernelProcess.lacksQuery, "the kernel as the judge needs PROCMAP_QUERY, Linux 6.11"))
struct ErrnoTableTests {
  @Test(arguments: ErrnoTable.all, LockPolicy.allCases)
  fileprivate func `every row is answered as the kernel answers it`(
    _ table: ErrnoTable, _ policy: LockPolicy
  ) throws {
    try check(table, policy, every: 1)
  }

  @Test(arguments: ErrnoTable.sealed, LockPolicy.allCases)
  fileprivate func `rows with seals are answered as the kernel answers them`(
    _ table: ErrnoTable, _ policy: LockPolicy
  ) throws {
    try check(table, policy, every: 4)
  }

  @Test(arguments: ErrnoTable.transfers, LockPolicy.allCases)
  fileprivate func `rows of copies between spaces are answered as the kernel answers them`(
    _ table: ErrnoTable, _ policy: LockPolicy
  ) throws {
    try check(table, policy, every: 4)
  }

  /// - Parameter stride: each policy makes every so many'th row, each another of them.
  private func check(
    _ table: ErrnoTable, _ policy: LockPolicy, every stride: Int
  ) throws {
    var verification = Verification()
    verification.policy = policy
    let judge = try verification.makeJudge()
    let layout = try (ErrnoTable.layout + table.before).map { try VerifyCall(line: $0) }
    var answers: Set<String> = []
    let flags = table.flags.count
    let first = LockPolicy.allCases.firstIndex(of: policy)!
    let rows = table.rows(judge.kernel.windows).enumerated().filter {
      // Rows beside each other differ in their flags.
      $0.offset / flags % stride == first % stride
    }.map(\.element)
    for row in rows {
      let run = try judge.run(layout + [row], interval: .max)
      if let difference = run.difference {
        Issue.record("\(row): the kernel \(difference.kernel), the space \(difference.subject)")
      }
      for seen in run.coverage.hits.keys where seen.before != "hole" || seen.answer != "ok" {
        answers.insert(seen.answer)
      }
    }
    // What a space has no words for yet has no rows.
    #expect(rows.isEmpty || answers.count > 1, "\(rows.count) rows, all \(answers)")
  }

  @Test func `the tables have the rows that a space knows`() throws {
    let windows = try KernelProcess().windows
    let rows = ErrnoTable.all.map { $0.rows(windows).count }
    print("rows of the errno tables: \(rows)")
    // The first six are of calls that every version has.
    #expect(rows.prefix(6).allSatisfy { $0 > 100 })
  }
}
