// SPDX-License-Identifier: Apache-2.0
//
// Scripts of several threads whose answers are determined: each thread works in its parts of the windows.
//
// A script is run one call after the other first, on the kernel and on a space, and compared as any other. Then
// its threads run at the same time on a new space, where every answer, the mappings near each call and in the
// end everything has to be what it was before.

import Synchronization

extension Judge {
  /// Runs the threads of a script, which has been run one call after the other, at the same time.
  func runTogether(
    _ script: ScriptRun, _ parts: ThreadParts
  ) throws(VerifyError) -> VerifyDifference? {
    guard let final = script.final else { return nil }
    let subject = try makeSubject()
    let shared = SharedSubject(subject: subject)
    var perThread: [[RecordedAnswer]] = Array(repeating: [], count: parts.areas.count)
    for answer in script.answers { perThread[answer.call.thread].append(answer) }
    let scripts = perThread
    let found = PerThread<VerifyDifference?>(scripts.count, nil)
    let stop = Stop()
    try RangelandVerify.runTogether(scripts.count) { thread in
      for answer in scripts[thread] {
        if stop.isRequested { return }
        if let difference = shared.differs(answer) {
          found[thread] = difference
          stop.request()
          return
        }
      }
    }
    if let first = found.all.compactMap({ $0 }).min(by: { $0.index < $1.index }) { return first }
    let last = script.calls.count - 1
    let state = RecordedState(subject, windows: kernel.windows, asIn: final)
    return final.difference(state, last) ?? leftover(subject, last)
  }

  /// A script of several threads: one call after the other, then `times` times at the same time.
  func run(
    _ calls: [VerifyCall], _ parts: ThreadParts, times: Int, interval: Int
  ) throws(VerifyError) -> ScriptRun {
    var run = try self.run(calls, interval: interval, parts: parts)
    if run.undetermined != nil { return run }
    var left = times
    while run.difference == nil && left > 0 {
      left -= 1
      run.difference = try runTogether(run, parts)
    }
    return run
  }

  /// A shorter script of several threads that differs when they run at the same time. Each piece is tried
  /// often, because a difference shows only when the threads meet.
  ///
  /// - Returns: `nil` when the script does not differ again.
  func shrink(
    _ script: [VerifyCall], _ parts: ThreadParts, limit: Int = 150, times: Int = 40
  ) throws(VerifyError) -> Differing? {
    func differing(_ calls: [VerifyCall]) throws(VerifyError) -> Differing? {
      try run(calls, parts, times: times, interval: .max).difference.map { (calls, $0) }
    }
    guard var best = try differing(script) else { return nil }
    try shorten(&best, runs: limit - 1, differing)
    return best
  }
}

/// A subject that threads use at the same time: its calls and listings may be made from any.
private struct SharedSubject: @unchecked Sendable {
  let subject: any VerifySubject

  func differs(_ answer: RecordedAnswer) -> VerifyDifference? {
    let got = subject.perform(answer.call)
    if got != answer.outcome {
      return VerifyDifference(
        index: answer.index, what: "together: result", kernel: "\(answer.outcome)",
        subject: "\(got)")
    }
    if answer.near.isEmpty { return nil }
    let mappings = answer.near.flatMap { subject.mappings($0.start, $0.end) }
    if mappings == answer.mappings { return nil }
    return VerifyDifference(
      index: answer.index, what: "together: mappings near the call",
      kernel: list(answer.mappings), subject: list(mappings))
  }
}

/// Tells threads to stop.
private final class Stop: Sendable {
  private let flag = Atomic<Bool>(false)

  var isRequested: Bool { flag.load(ordering: .relaxed) }

  func request() { flag.store(true, ordering: .relaxed) }
}
