// SPDX-License-Identifier: Apache-2.0
//
// `rangeland bench space`.

import ArgumentParser
import Foundation
import Rangeland

struct BenchSpace: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "space",
    abstract: "Map, fault and protect loops: the kernel, and an AddressSpace under every policy.",
    discussion: """
      mmap1 maps and unmaps 128 MiB; protect flips a page in the middle of a 128 MiB mapping; fault1 maps \
      128 MiB, writes a byte to every page and unmaps (a page is an operation, and is zeroed in it); refault faults \
      16 times on a present page and then on another mapping's, scatter on another's each time, with the VMA cache \
      and without, among 64 and 65,536 mappings; spin \
      uses no memory and shows whether the machine gives each thread a core; pager tells how long a map, a \
      fault and an unmap of a thread take at most, in 99 of 100 cases, alone, beside 32 threads that sleep 100 us at a \
      time, beside 32 that fault through a pager which takes 100 us for a page, and beside 32 that do the same in a \
      space of another memory, on all processors and with one that the thread has for itself; fork tells what a fork of 1,000 and of 10,000 mappings takes, and \
      how long a thread that stores has to wait at most. \
      Every round runs every cell once; a figure is the median of its rounds. A missed target is printed \
      and does not change the exit status.
      """)

  @Option(help: "Counted rounds.")
  var rounds = 7

  @Option(help: "Milliseconds for one run of one cell.")
  var milliseconds = 60

  @Option(parsing: .upToNextOption, help: "Numbers of threads.")
  var threads = [1, 2]

  @Option(
    parsing: .upToNextOption,
    help: "Only these loops: mmap1, fault1, protect, refault, scatter, spin, pager, fork.")
  var only: [String] = []

  @Option(
    parsing: .upToNextOption,
    help: "Only these subjects, for a profile: kernel, zeroing, or policies. Targets need them all."
  )
  var subjects: [String] = []

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if rounds < 1 || milliseconds < 1 || threads.isEmpty || threads.contains(where: { $0 < 1 }) {
      throw ValidationError("--rounds, --milliseconds and --threads take numbers of at least 1")
    }
    let loops = ["mmap1", "fault1", "protect", "refault", "scatter", "spin", "pager", "fork"]
    if let unknown = only.first(where: { !loops.contains($0) }) {
      throw ValidationError("--only: no loop is named '\(unknown)'; there are \(loops)")
    }
  }

  func run() throws {
    let bench = SpaceBench(threadCounts: threads)
    let cells = try bench.cells().filter {
      (only.isEmpty || only.contains($0.name))
        && (subjects.isEmpty || subjects.contains($0.subject))
    }
    let hasPager = (only.isEmpty || only.contains("pager")) && subjects.isEmpty
    let hasFork = (only.isEmpty || only.contains("fork")) && subjects.isEmpty
    guard !cells.isEmpty || hasPager || hasFork else {
      throw ValidationError("--only and --subjects leave nothing to measure")
    }
    var progress = Progress()
    var results = try BenchRunner(rounds: rounds, milliseconds: milliseconds)
      .run(cells) { progress.report($0) }
    var facts: [BenchFact] = []
    if hasPager {
      let report = try PagerBench(rounds: rounds, milliseconds: milliseconds)
        .run { progress.report($0) }
      results += report.cells
      facts += report.facts
    }
    if hasFork { results += try ForkBench(rounds: rounds).run { progress.report($0) } }
    progress.clear()
    let report = BenchReport(
      machine: .here(), cells: results,
      targets: bench.targets(results) + PagerBench.targets(results) + ForkBench.targets(results),
      facts: facts,
      unit: "nanoseconds an operation of one thread, median (least - most); fault1: a page")
    try Terminal.print(json ? encoded(report) : report.text() + "\n")
  }
}
