// SPDX-License-Identifier: Apache-2.0
//
// many random histories, each of which needs a sequential order that explains it.

import Rangeland
import SystemPackage

/// Runs random overlapping calls of several threads on a few pages, and looks for an order that explains what
/// they saw. It needs no kernel.
public struct HistoryVerification {
  public var histories = 10_000
  public var seed: UInt64 = 1
  public var policy = LockPolicy.ranged
  /// 2 to 8.
  public var threads = 8
  /// Of each thread in a history.
  public var calls = 6
  /// Asked now and then: whether to stop.
  public var isCancelled: () -> Bool = { false }
  public var progress: (Int) -> Void = { _ in }
  /// A mistake that is made on purpose, to judge the judge.
  var mistake: HistoryMistake?

  public static var threadRange: ClosedRange<Int> { 2...HistoryState.mostThreads }

  public init() {}

  /// What a run found.
  public struct Report: Sendable {
    public var seed: UInt64
    public var policy: LockPolicy
    public var threads: Int
    public var histories = 0
    public var operations = 0
    /// Pairs of calls of two threads that overlapped in time and had a page in common.
    public var overlaps = 0
    /// Histories whose search was given up.
    public var undecided = 0
    /// The history that no order explains.
    public var unexplained: String?
    /// Calls by kind and answer.
    public var coverage: [String: Int] = [:]
    public var wasCancelled = false

    /// What a run of this length should have met and has not.
    public var shortfalls: [String] {
      guard unexplained == nil, !wasCancelled, histories >= HistoryVerification.judgedFrom else {
        return []
      }
      var list = HistoryVerification.required.filter { coverage[$0, default: 0] == 0 }
      // How often threads meet is the machine's matter; that they never do is not.
      if overlaps < histories / 20 {
        list.append("\(overlaps) calls met in \(histories) histories")
      }
      if undecided * 1000 > histories { list.append("\(undecided) searches were given up") }
      return list
    }
  }

  /// Shorter runs are not judged by what they met.
  public static var judgedFrom: Int { 1000 }

  static let required = [
    "fork ok", "ftruncate ok", "load SEGV_ACCERR", "load SEGV_MAPERR", "load ok", "load signal 7/2",
    "madvise-dontneed ENOMEM", "mmap_file ok", "msync ENOMEM", "msync ok",
    "madvise-dontneed ok", "madvise-remove ok", "mremap-again ok", "mremap-move EFAULT",
    "mremap-move EINVAL", "mremap-move ok",
    "mmap ENOMEM",
    "mmap ok", "mmap-fixed ok", "mmap-hint ok", "mmap-noreplace EEXIST", "mmap-noreplace ok",
    "mprotect ENOMEM", "mprotect ok", "munmap ok", "store SEGV_ACCERR", "store SEGV_MAPERR",
    "store ok",
  ]

  /// Over the border of two page tables.
  private static let window = KernelProcess.AddressPair(
    start: 0x6000_0020_0000 - 5 * 4096, end: 0x6000_0020_0000 + 5 * 4096)

  /// Runs until as many histories are explained, or one is not.
  public func run() throws(VerifyError) -> Report {
    let memory: PhysicalMemory
    do throws(Errno) { memory = try PhysicalMemory() } catch {
      throw VerifyError("no memory for address spaces: \(error)")
    }
    let files = try VerifyFiles()
    let checker = HistoryChecker(choosesFirst: policy == .ranged)
    var report = Report(seed: seed, policy: policy, threads: threads)
    var seeds = VerifyRandom(seed: seed)
    while report.histories < histories, report.unexplained == nil {
      if isCancelled() {
        report.wasCancelled = true
        break
      }
      let subject = try SpaceSubject(
        windows: [Self.window, Self.window.sharedMemory], policy: policy, memory: memory,
        heapBefore: 0, files: files)
      subject.space.yieldInsideOperations()
      let batch = HistoryBatch(
        mistake?.make(subject) ?? subject, window: Self.window, threads: threads, calls: calls,
        histories: min(64, histories - report.histories), seed: seeds.next())
      for history in try batch.run() {
        add(history, checker.check(history), &report)
        if report.unexplained != nil { break }
      }
      progress(report.histories)
    }
    return report
  }

  private func add(
    _ history: History, _ verdict: HistoryChecker.Verdict, _ report: inout Report
  ) {
    report.histories += 1
    let calls = Array(history.threads.joined())
    report.operations += calls.count
    for call in calls {
      let name = call.call.kind.definition.coverageName(call.call)
      report.coverage["\(name) \(call.outcome.name(call.call))", default: 0] += 1
    }
    report.overlaps += history.overlaps
    switch verdict {
    case .explained: break
    case .undecided: report.undecided += 1
    case .unexplained: report.unexplained = history.text
    }
  }
}

extension History {
  /// Pairs of calls of two threads that overlapped in time and had a page in common.
  var overlaps: Int {
    let calls = threads.joined().sorted { $0.began < $1.began }
    var count = 0
    for (i, first) in calls.enumerated() {
      for second in calls[(i + 1)...] {
        if second.began > first.ended { break }
        if second.call.thread != first.call.thread,
          touched(first).contains(where: touched(second).contains)
        {
          count += 1
        }
      }
    }
    return count
  }

  /// The pages of a call, by number.
  private func touched(_ call: HistoryCall) -> Range<UInt64> {
    let isPlaced = call.call.kind == .mmap && !call.call.isFixed
    let start =
      isPlaced && call.outcome.result >= 0 ? UInt64(call.outcome.result) : call.call.at
    // Of a move the place that it goes to is left out.
    return start / 4096..<(start + call.call.length + 4095) / 4096
  }
}
