// SPDX-License-Identifier: Apache-2.0
//
// A run: many scripts, each from a seed of its own, until one differs.

import Rangeland
import SystemPackage

/// Runs random scripts, or a given one, on the kernel and on an address space.
public struct Verification {
  public var operations = 100_000
  public var seed: UInt64 = 1
  public var policy = LockPolicy.ranged
  /// The kinds of calls that are made, and of which a run must have seen enough. Random scripts have
  /// what these need as well, mmap above all.
  public var kinds = VerifyCall.Kind.allCases
  /// Calls of one script. Each script begins with empty windows.
  public var scriptLength = 512
  /// A mistake that is made on purpose, to judge the judge.
  var mistake: Mistake?
  /// Asked now and then: whether to stop.
  public var isCancelled: () -> Bool = { false }
  public var progress: (Int) -> Void = { _ in }

  public init() {}

  /// What a run found.
  public struct Report: Sendable {
    public var kernel = KernelProcess.release
    public var seed: UInt64
    public var policy: LockPolicy
    public var kinds = VerifyCall.Kind.allCases
    public var operations = 0
    public var succeeded = 0
    public var scripts = 0
    public var difference: VerifyDifference?
    /// The shortest script that differs.
    public var script: [VerifyCall] = []
    /// Operations until the difference was seen.
    public var operationsToDifference: Int?
    /// By index in `Departure.all`.
    public var departures: [Int: Int] = [:]
    public var coverage = Coverage()
    public var wasCancelled = false
    /// Whether calls were random: a given script is not judged by its coverage.
    public var isRandom = true

    /// Requirements that a run of this length should have met and has not.
    public var shortfalls: [String] {
      guard isRandom, difference == nil, !wasCancelled else { return [] }
      var list: [String] = []
      for (i, departure) in Departure.all.enumerated() {
        let count = departures[i] ?? 0
        if count * 1_000_000 > departure.boundPerMillion * max(operations, 10_000) {
          list.append("departure \(departure.name): \(count) times")
        }
      }
      guard operations >= Coverage.judgedFrom else { return list }
      if kinds.count == VerifyCall.Kind.allCases.count, succeeded * 100 < operations * 60 {
        list.append("only \(succeeded * 100 / operations) % of the calls succeeded")
      }
      return list + coverage.missing(kinds).map { "\($0.name): \($0.hits) hits, not \($0.minimum)" }
    }
  }

  private func makeJudge() throws(VerifyError) -> Judge {
    let kernel = try KernelProcess()
    let (policy, mistake) = (policy, mistake)
    let memory: PhysicalMemory
    let aside: AddressSpace
    do throws(Errno) {
      memory = try PhysicalMemory()
      aside = try AddressSpace(policy: policy, memory: memory)
    } catch {
      throw VerifyError("no memory for address spaces: \(error)")
    }
    return Judge(kernel, aside: aside) { () throws(VerifyError) in
      let subject = try SpaceSubject(windows: kernel.windows, policy: policy, memory: memory)
      return mistake.map { $0.make(subject) } ?? subject
    }
  }

  /// Random scripts.
  public func run() throws(VerifyError) -> Report {
    let judge = try makeJudge()
    var report = Report(seed: seed, policy: policy, kinds: kinds)
    var seeds = VerifyRandom(seed: seed)
    while report.operations < operations {
      if isCancelled() {
        report.wasCancelled = true
        break
      }
      var generator = ScriptGenerator(
        seed: seeds.next(), windows: judge.kernel.windows, kinds: kinds)
      var left = min(scriptLength, operations - report.operations)
      let run = try judge.run { (subject) throws(VerifyError) in
        if left == 0 { return nil }
        left -= 1
        return generator.next(subject, judge.kernel)
      }
      add(run, to: &report)
      if let difference = run.difference {
        report.operationsToDifference = report.operations
        try shrink(run.calls, difference, judge, &report)
        break
      }
      progress(report.operations)
    }
    return report
  }

  /// One script from its text: a call a line, `#` begins a comment.
  public func run(script text: String) throws(VerifyError) -> Report {
    var calls: [VerifyCall] = []
    for line in text.split(separator: "\n") where !line.isEmpty && !line.hasPrefix("#") {
      calls.append(try VerifyCall(line: String(line)))
    }
    let judge = try makeJudge()
    for call in calls where !judge.kernel.isHarmless(call) {
      throw VerifyError("'\(call)' reaches beyond the windows")
    }
    var report = Report(seed: seed, policy: policy)
    report.isRandom = false
    let run = try judge.run(calls, interval: 1)
    add(run, to: &report)
    if let difference = run.difference {
      report.operationsToDifference = report.operations
      try shrink(run.calls, difference, judge, &report)
    }
    return report
  }

  private func add(_ run: ScriptRun, to report: inout Report) {
    report.scripts += 1
    report.operations += run.calls.count
    report.succeeded += run.succeeded
    report.coverage.add(run.coverage)
    report.departures.merge(run.departures, uniquingKeysWith: +)
  }

  private func shrink(
    _ calls: [VerifyCall], _ difference: VerifyDifference, _ judge: Judge, _ report: inout Report
  ) throws(VerifyError) {
    if let shortest = try judge.shrink(calls) {
      (report.script, report.difference) = (shortest.calls, shortest.difference)
    } else {
      // Seen once and not again: told as it was.
      (report.script, report.difference) = (calls, difference)
    }
  }
}

extension Verification.Report {
  /// The script as `--script` reads it.
  public var scriptText: String {
    "# rangeland verify: seed \(seed), policy \(policy.rawValue), kernel \(kernel)\n"
      + script.map { "\($0)\n" }.joined()
  }
}
