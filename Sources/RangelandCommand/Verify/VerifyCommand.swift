// SPDX-License-Identifier: Apache-2.0
//
// `rangeland verify`: the running kernel as the judge of an address space.

import ArgumentParser
import CRangeland
import Rangeland
import RangelandVerify
import SystemPackage

struct VerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Compare an address space with the running kernel, call by call.",
    discussion: """
      Makes the same random calls (of mappings, memory, files, forks; see --only) on an AddressSpace and on the kernel, in \
      a helper process, and compares results, mappings, their flags, residency, contents and sizes. Stops at the first \
      difference and prints the shortest script that still differs.

      Exit status 2: a difference. 1: nothing differs, but the run has not exercised what it had to. Needs Linux 6.11.
      """)

  @Option(help: "Calls to make.")
  var operations = 100_000

  @Option(help: "Determines the calls; without it a fresh one, which is printed.")
  var seed: UInt64?

  @Option(help: "The lock of the space: semaphore, wholeRange, ranged or perVMA.")
  var policy = LockPolicy.ranged

  @Option(
    help: "Threads that make the calls at the same time, each in parts of its own of the windows.")
  var threads: Int?

  @Option(
    help: ArgumentHelp(
      "Instead: so many histories of overlapping calls of 8 threads on a few pages, each of which needs a "
        + "sequential order that explains it.", valueName: "n"))
  var histories: Int?

  @Option(
    help: ArgumentHelp(
      "Only these kinds of calls, separated by commas; what they need, as mmap, is made too.",
      discussion: kindNames, valueName: "kinds"),
    transform: Self.kinds)
  var only: [VerifyCall.Kind]?

  @Option(help: "Run the calls of this file instead, one a line, as a difference is printed.")
  var script: String?

  @Flag(help: "Print where Rangeland departs from the kernel on purpose, and end.")
  var departures = false

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if operations < 1 { throw ValidationError("--operations takes a positive number") }
    if let histories {
      if histories < 1 { throw ValidationError("--histories takes a positive number") }
      if script != nil || only != nil {
        throw ValidationError("--histories goes with --seed, --policy and --threads")
      }
      if let threads, !(HistoryVerification.threadRange ~= threads) {
        throw ValidationError("histories have \(HistoryVerification.threadRange) threads")
      }
    } else if let threads, !(1...Verification.mostThreads ~= threads) {
      throw ValidationError("--threads takes a number from 1 to \(Verification.mostThreads)")
    }
    if script != nil && threads != nil {
      throw ValidationError("a script says itself which threads it has")
    }
    if script != nil && seed != nil {
      throw ValidationError("a script needs no --seed")
    }
    if let only, only.isEmpty {
      throw ValidationError("--only takes kinds of calls: \(Self.kindNames)")
    }
    if script != nil && only != nil {
      throw ValidationError("a script needs no --only")
    }
  }

  func run() throws {
    if departures {
      try Terminal.print(
        json
          ? JSON.document(["departures": VerifyReport.departures(nil)])
          : VerifyReport.departureText())
      return
    }
    let seed = seed ?? (rl_monotonic_ns() ^ rl_cycles())
    if let histories { return try run(histories: histories, seed) }
    var verification = Verification()
    verification.operations = operations
    verification.seed = seed
    verification.policy = policy
    verification.threads = threads ?? 1
    if let only { verification.kinds = only }
    verification.isCancelled = { Interruption.isRequested }
    let progress = ProgressLine()
    let total = operations
    verification.progress = { progress.line.report("\($0) of \(total) operations") }
    let start = rl_monotonic_ns()
    let report =
      if let script {
        try verification.run(script: Self.text(of: script))
      } else {
        try verification.run()
      }
    progress.line.clear()
    let seconds = Double(rl_monotonic_ns() - start) / 1e9
    let result = VerifyReport(report: report, seconds: seconds)
    try Terminal.print(json ? result.json() : result.text())
    if report.difference != nil { throw Difference() }
    if report.wasCancelled { throw Interrupted() }
    if !report.shortfalls.isEmpty {
      throw VerifyError("the run has not exercised what it had to; see 'missing'")
    }
  }

  private func run(histories: Int, _ seed: UInt64) throws {
    var verification = HistoryVerification()
    verification.histories = histories
    verification.seed = seed
    verification.policy = policy
    verification.threads = threads ?? 8
    verification.isCancelled = { Interruption.isRequested }
    let progress = ProgressLine()
    verification.progress = { progress.line.report("\($0) of \(histories) histories") }
    let start = rl_monotonic_ns()
    let report = try verification.run()
    progress.line.clear()
    let result = HistoryReport(
      report: report, seconds: Double(rl_monotonic_ns() - start) / 1e9)
    try Terminal.print(json ? result.json() : result.text())
    if report.unexplained != nil { throw Difference() }
    if report.wasCancelled { throw Interrupted() }
    if !report.shortfalls.isEmpty {
      throw VerifyError("the run has not exercised what it had to; see 'missing'")
    }
  }

  private static let kindNames =
    VerifyCall.Kind.allCases.map(\.rawValue).joined(separator: ", ")
    + "; files is all calls on files, fork also exit and process_vm_readv and writev"

  /// What `--only` takes. `files` and `fork` are several kinds: calls on files, and spaces that come of each other, end,
  /// and copy from each other.
  private static func kinds(_ text: String) throws -> [VerifyCall.Kind] {
    let words = text.split(separator: ",").map(String.init)
    if Set(words).count != words.count {
      throw ValidationError("--only takes each kind of calls once")
    }
    var kinds: [VerifyCall.Kind] = []
    for word in words {
      let family: [VerifyCall.Kind]
      if word == "files" {
        family = VerifyCall.Kind.ofFiles
      } else if word == "fork" {
        family = VerifyCall.Kind.ofForks
      } else if let kind = VerifyCall.Kind(rawValue: word) {
        family = [kind]
      } else {
        throw ValidationError("'\(word)' is no kind of call; the kinds are \(kindNames)")
      }
      kinds += family.filter { !kinds.contains($0) }
    }
    return kinds
  }

  private static func text(of path: String) throws -> String {
    do {
      let file = try FileDescriptor.open(path, .readOnly)
      return try file.closeAfter {
        var bytes: [UInt8] = []
        while true {
          let piece = try [UInt8](unsafeUninitializedCapacity: 1 << 16) { buffer, count in
            count = try file.read(into: UnsafeMutableRawBufferPointer(buffer))
          }
          if piece.isEmpty { break }
          bytes += piece
        }
        return String(decoding: bytes, as: UTF8.self)
      }
    } catch let error as Errno {
      throw VerifyError("\(path) cannot be read: \(error)")
    }
  }
}

/// The progress line, shared with the closure that reports.
private final class ProgressLine {
  var line = Progress()
}

extension LockPolicy: ExpressibleByArgument {}
