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
  public var kinds = VerifyCall.Kind.ordinary
  /// Threads that make the calls of a script, each in its parts of the windows.
  public var threads = 1
  public static var mostThreads: Int { 64 }
  /// Calls of one script, or of one thread of it. Each script begins with empty windows.
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
    public var kinds = VerifyCall.Kind.ordinary
    public var threads = 1
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
      return list + coverageShortfalls
    }

    /// Those that more calls can mend.
    var coverageShortfalls: [String] {
      guard operations >= Coverage.judgedFrom else { return [] }
      var list: [String] = []
      // With several threads, calls whose answers are not determined are missing, and those are ones that succeed.
      let share = threads > 1 ? 50 : 60
      let isAll = VerifyCall.Kind.ordinary.allSatisfy {
        kinds.contains($0) || threads > 1 && VerifyCall.Kind.ofFiles.contains($0)
      }
      if isAll, succeeded * 100 < operations * share {
        list.append("only \(succeeded * 100 / operations) % of the calls succeeded")
      }
      return list
        + coverage.missing(kinds, threads: threads).map {
          "\($0.name): \($0.hits) hits, not \($0.minimum)"
        }
    }
  }

  func makeJudge() throws(VerifyError) -> Judge {
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
      let subject = try SpaceSubject(
        windows: kernel.windows, policy: policy, memory: memory, heapBefore: kernel.heapBefore,
        files: kernel.files)
      return mistake.map { $0.make(subject) } ?? subject
    }
  }

  /// Random scripts.
  public func run() throws(VerifyError) -> Report {
    var kinds = kinds
    // The threads of a script share its files.
    if threads > 1 { kinds.removeAll { VerifyCall.Kind.ofFiles.contains($0) } }
    if kinds.isEmpty { throw VerifyError("calls on files are made by one thread") }
    let judge = try makeJudge()
    var report = Report(seed: seed, policy: policy, kinds: kinds, threads: threads)
    var seeds = VerifyRandom(seed: seed)
    while report.operations < operations || goesOn(report) {
      if isCancelled() {
        report.wasCancelled = true
        break
      }
      let seed = seeds.next()
      var left = scriptLength * threads
      if report.operations < operations { left = min(left, operations - report.operations) }
      if threads > 1 {
        try runThreads(seed, left, kinds, judge, &report)
      } else {
        try runOne(seed, left, judge, &report)
      }
      if report.difference != nil { break }
      progress(report.operations)
    }
    return report
  }

  /// Whether a run that has made its calls makes some more: what a script exercises is a matter of chance, so its
  /// coverage is judged when it is complete, or when that many more calls have not completed it.
  private func goesOn(_ report: Report) -> Bool {
    operations >= Coverage.judgedFrom && report.operations < operations + Coverage.mostExtra
      && !report.coverageShortfalls.isEmpty
  }

  /// A random script of one thread.
  private func runOne(
    _ seed: UInt64, _ length: Int, _ judge: Judge, _ report: inout Report
  ) throws(VerifyError) {
    var generator = ScriptGenerator(seed: seed, windows: judge.kernel.windows, kinds: kinds)
    var left = length
    let run = try judge.run { (subject) throws(VerifyError) in
      if left == 0 { return nil }
      left -= 1
      return generator.next(subject)
    }
    try add(run, judge, to: &report)
  }

  /// A random script of several threads, whose calls alternate at random until they run at the same time.
  private func runThreads(
    _ seed: UInt64, _ length: Int, _ kinds: [VerifyCall.Kind], _ judge: Judge,
    _ report: inout Report
  ) throws(VerifyError) {
    let windows = judge.kernel.windows
    let parts = ThreadParts(windows, threads: threads)
    var random = VerifyRandom(seed: seed)
    var generators = parts.areas.enumerated().map { thread, areas in
      ScriptGenerator(
        seed: random.next(), windows: windows, kinds: kinds, thread: thread, areas: areas)
    }
    var left = length
    var run = try judge.run(parts: parts) { (subject) throws(VerifyError) in
      if left == 0 { return nil }
      left -= 1
      let thread = Int(random.below(UInt64(generators.count)))
      return generators[thread].next(subject)
    }
    if run.difference == nil {
      run.difference = try judge.runTogether(run, parts)
      try add(run, judge, parts, to: &report)
    } else {
      // No matter of threads.
      for i in run.calls.indices { run.calls[i].thread = 0 }
      report.threads = 1
      try add(run, judge, to: &report)
    }
  }

  /// One script from its text: a call a line, `#` begins a comment, `threads N` says how the windows are divided
  /// for calls that begin with `@thread`.
  public func run(script text: String) throws(VerifyError) -> Report {
    var calls: [VerifyCall] = []
    var threads = 1
    for line in text.split(separator: "\n") where !line.isEmpty && !line.hasPrefix("#") {
      if line.hasPrefix("threads ") {
        guard let number = Int(line.dropFirst(8)), 1...Self.mostThreads ~= number else {
          throw VerifyError("'\(line)': 1 to \(Self.mostThreads) threads")
        }
        threads = number
        continue
      }
      calls.append(try VerifyCall(line: String(line)))
    }
    let judge = try makeJudge()
    for call in calls where !judge.kernel.windows.isHarmless(call) {
      throw VerifyError("'\(call)' reaches beyond the windows")
    }
    var report = Report(seed: seed, policy: policy, threads: threads)
    report.isRandom = false
    if threads > 1 {
      let parts = ThreadParts(judge.kernel.windows, threads: threads)
      for call in calls where !parts.contain(judge.kernel.windows.resolve(call)) {
        throw VerifyError("'\(call)' leaves the parts of its thread")
      }
      // Often: a difference shows only when the threads meet.
      let run = try judge.run(calls, parts, times: 200, interval: 1)
      if let call = run.undetermined {
        throw VerifyError("the answer to '\(call)' depends on other threads there")
      }
      try add(run, judge, parts, to: &report)
    } else {
      try add(try judge.run(calls, interval: 1), judge, to: &report)
    }
    return report
  }

  /// Adds a script to the report; one that differs is made short.
  private func add(
    _ run: ScriptRun, _ judge: Judge, _ parts: ThreadParts? = nil, to report: inout Report
  ) throws(VerifyError) {
    report.scripts += 1
    report.operations += run.calls.count
    report.succeeded += run.succeeded
    report.coverage.add(run.coverage)
    report.departures.merge(run.departures, uniquingKeysWith: +)
    guard let difference = run.difference else { return }
    report.operationsToDifference = report.operations
    // Seen once and not again: told as it was.
    (report.script, report.difference) = (run.calls, difference)
    let shortest =
      if let parts { try judge.shrink(run.calls, parts) } else { try judge.shrink(run.calls) }
    if let shortest { (report.script, report.difference) = (shortest.calls, shortest.difference) }
  }
}

extension Verification.Report {
  /// The script as `--script` reads it.
  public var scriptText: String {
    "# rangeland verify: seed \(seed), policy \(policy.rawValue), kernel \(kernel)\n"
      + (threads > 1 ? "threads \(threads)\n" : "")
      + script.map { "\($0)\n" }.joined()
  }
}
