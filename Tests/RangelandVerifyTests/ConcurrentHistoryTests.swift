// SPDX-License-Identifier: Apache-2.0
//
// random overlapping histories of 8 threads have a sequential order; the checker says so of those alone.

import Rangeland
import RangelandTestSupport
import Testing

@testable import RangelandVerify

@Suite(.serialized) struct ConcurrentHistoryTests {
  @Test(arguments: LockPolicy.allCases)
  func `a sequential order explains what threads see`(_ policy: LockPolicy) throws {
    let random = SeededRandom(for: "histories under \(policy)")
    var verification = HistoryVerification()
    #if RANGELAND_TSAN
      verification.histories = 200
    #else
      verification.histories = HistoryVerification.judgedFrom
    #endif
    verification.policy = policy
    verification.seed = random.seed
    let report = try withWatchdog(seconds: 120, "\(policy)") { () throws(VerifyError) in
      try verification.run()
    }
    if let history = report.unexplained { Issue.record("no order explains\n\(history)") }
    #expect(report.shortfalls.isEmpty)
    print("\(policy): \(report.overlaps) pairs of calls met, \(report.undecided) undecided")
  }

  @Test(arguments: HistoryMistake.allCases)
  func `what is not atomic is found`(_ mistake: HistoryMistake) throws {
    let random = SeededRandom(for: "histories with \(mistake)")
    var verification = HistoryVerification()
    verification.histories = 20_000
    verification.seed = random.seed
    verification.mistake = mistake
    let report = try withWatchdog(seconds: 120, "\(mistake)") { () throws(VerifyError) in
      try verification.run()
    }
    #expect(report.unexplained != nil, "not found in \(report.histories) histories")
    print("\(mistake): found in history \(report.histories)")
  }

  // MARK: histories by hand

  private static let window = KernelProcess.AddressPair(start: 1 << 20, end: 1 << 20 | 4 * 4096)

  private static func call(
    _ line: String, _ outcome: VerifyOutcome, _ began: Int, _ ended: Int
  ) throws -> HistoryCall {
    var call = try VerifyCall(line: line)
    call.at += window.start
    return HistoryCall(call: call, outcome: outcome, began: began, ended: ended)
  }

  /// One page that may be written, and what two threads did.
  private static func history(
    _ first: [HistoryCall], _ second: [HistoryCall], value: UInt64
  ) throws -> History {
    var final = PageModel(count: 4)
    final.map(0, rights: 3, shared: false, value: value)
    let map = VerifyCall(
      .mmap, VerifyAddress(nil, window.start), 4096, protection: 3, flags: 0x32)
    return History(window: window, prologue: [map], threads: [first, second], final: final)
  }

  @Test(arguments: [false, true])
  func `calls that overlap may have any order, others only theirs`(_ overlaps: Bool) throws {
    // The second thread reads 0 although a store of 1 ended before, or did not.
    let store = try Self.call("store 0x0 8 value=1", .success, 1, overlaps ? 5 : 2)
    let load = try Self.call("load 0x0 8", VerifyOutcome(result: 0), 3, 4)
    let history = try Self.history([store], [load], value: 1)
    let verdict = HistoryChecker(choosesFirst: false).check(history)
    #expect(verdict == (overlaps ? .explained([1, 0]) : .unexplained))
  }

  @Test func `two threads do not see two stores in different orders`() throws {
    let stores = [
      try Self.call("store 0x0 8 value=1", .success, 1, 20),
      try Self.call("load 0x0 8", VerifyOutcome(result: 2), 21, 22),
    ]
    let others = [
      try Self.call("store 0x0 8 value=2", .success, 2, 19),
      try Self.call("load 0x0 8", VerifyOutcome(result: 1), 23, 24),
    ]
    let history = try Self.history(stores, others, value: 1)
    #expect(HistoryChecker(choosesFirst: false).check(history) == .unexplained)
  }

  @Test func `the state at the end has to be explained too`() throws {
    let store = try Self.call("store 0x0 8 value=1", .success, 1, 2)
    #expect(
      HistoryChecker(choosesFirst: false).check(try Self.history([store], [], value: 1))
        == .explained([0]))
    #expect(
      HistoryChecker(choosesFirst: false).check(try Self.history([store], [], value: 0))
        == .unexplained)
  }

  /// The search needs more than the first order that it tries.
  @Test func `an order is found where the earliest end does not come first`() throws {
    let first = [
      try Self.call("munmap 0x0 0x1000", .success, 1, 10),
      try Self.call("mmap 0x0 0x1000 prot=3 flags=0x32", VerifyOutcome(result: 1 << 20), 11, 12),
    ]
    let second = [
      try Self.call(
        "load 0x0 8", VerifyOutcome(signal: 11, code: 1, faultAddress: 1 << 20), 2, 3)
    ]
    let history = try Self.history(first, second, value: 0)
    #expect(HistoryChecker(choosesFirst: false).check(history) == .explained([0, 1, 0]))
  }
}
