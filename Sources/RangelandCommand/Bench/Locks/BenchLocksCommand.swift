// SPDX-License-Identifier: Apache-2.0
//
// `rangeland bench locks`.

import ArgumentParser

struct BenchLocks: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "locks",
    abstract:
      "The range lock beside pthread locks, a ticket lock, a semaphore and an interval tree.",
    discussion: """
      alone: acquire and release, one thread; disjoint: threads on ranges of their own; readers: of one range; \
      held: one more range beside many; mix: random ranges in 1 TiB, 1 to 100 % writers, with and without work \
      under the lock; hand-off: two threads on one range; overtaking: a writer of everything among seven readers, judged by \
      how many readers overtake it; cancel: requests that give up behind a hold, judged by what is left of them in memory; \
      spin: arithmetic that shows whether every thread had a \
      core (if it costs more with two threads than with one, no figure with two means anything). A second live thread has \
      used every lock once and is idle. Threads that are no more than the processors have one each. What tracing costs while \
      it is off is counted in instructions by Scripts/check-tracing-cost. Every round runs every cell once; a figure is the median of its rounds, for one thread. A missed \
      target is printed and does not change the exit status.
      """)

  @Option(help: "Counted rounds.")
  var rounds = 5

  @Option(help: "Milliseconds for one run of one cell.")
  var milliseconds = 20

  @Option(parsing: .upToNextOption, help: "Numbers of threads for disjoint ranges and readers.")
  var threads = [1, 2]

  @Option(
    parsing: .upToNextOption,
    help: "Only these groups: alone, disjoint, readers, held, mix, hand-off, overtaking, cancel.")
  var only: [String] = []

  @Option(help: "The most ranges that are held in the group `held`; a million take 150 MB.")
  var held = 1_000_000

  @Option(
    help: .init(
      "Only acquire and release on one way, `--operations` times: whole-lock, directory, wide.",
      visibility: .hidden))
  var count: String?

  @Option(help: .init("How often, with `--count`.", visibility: .hidden))
  var operations = 100_000

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if rounds < 1 || milliseconds < 1 || held < 1 || threads.isEmpty
      || threads.contains(where: { $0 < 1 || $0 > 1024 })
    {
      throw ValidationError(
        "--rounds, --milliseconds and --held take numbers of at least 1, --threads from 1 to 1024")
    }
    if let count, !CountedLoop.paths.contains(count) || operations < 0 {
      throw ValidationError("--count: there are \(CountedLoop.paths), and no negative numbers")
    }
    if let unknown = only.first(where: { !LockBench.groups.contains($0) }) {
      throw ValidationError("--only: no group is named '\(unknown)'; there are \(LockBench.groups)")
    }
  }

  func run() throws {
    if let count { return CountedLoop.run(count, operations: operations) }
    let bench = LockBench(
      groups: Set(only.isEmpty ? LockBench.groups : only), threadCounts: threads, mostHeld: held)
    let cells = bench.cells()
    var progress = Progress()
    let results = try BenchRunner(rounds: rounds, milliseconds: milliseconds)
      .run(cells) { progress.report($0) }
    progress.report("overtaking and cancelling")
    let extras = bench.extras()
    progress.clear()
    let report = BenchReport(
      machine: .here(), cells: results, targets: bench.targets(results) + extras.targets,
      facts: extras.facts,
      unit: "nanoseconds an acquire and release of one thread, median (least - most)")
    try Terminal.print(json ? encoded(report) : report.text() + "\n")
  }
}
