// SPDX-License-Identifier: Apache-2.0
//
// `rangeland simulate FILE`: a recording's own timing under every policy on more processors.

import ArgumentParser
import Rangeland
import RangelandReplay

struct SimulateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "simulate",
    abstract: "Simulate a recording under each lock policy on more processors.",
    discussion: """
      Runs the recorded threads with their own timing on virtual processors, with the rules of each policy for who \
      waits for whom. Times between operations are kept, blocked time too; waits for a processor and for the kernel's \
      lock are taken out. The same recording and options give the same output, byte for byte. docs/insight.md says \
      what can be trusted.

      A recording without scheduler events gets no more processors than it was made on, and is marked uncalibrated.
      """)

  @Argument(help: "The recording; without it, the one that ships with Rangeland.")
  var file: String?

  @Option(help: ArgumentHelp("Virtual processors, at most 64.", valueName: "n,n,..."))
  var cores = "2,8,32,64"

  @Option(
    help: ArgumentHelp(
      "Policies: semaphore, wholeRange, ranged, perVMA; all by default.", valueName: "p,p,..."))
  var policy: String?

  @Option(
    help: ArgumentHelp(
      "Write a trace of the simulation that Perfetto opens; takes one policy and one number of processors.",
      valueName: "file"))
  var trace: String?

  @Option(
    help: ArgumentHelp("What a fault takes whose length is not recorded.", valueName: "ns"))
  var faultTime = SimulationSettings().fault

  @Option(
    help: ArgumentHelp(
      "From a grant until a sleeping thread can run. (default: as recorded, else 3000)",
      valueName: "ns"))
  var wakeTime: UInt64?

  @Option(
    help: ArgumentHelp(
      "From a release until a polling thread has the lock. (default: as recorded, else 0)",
      valueName: "ns"))
  var handoverTime: UInt64?

  @Option(help: ArgumentHelp("How long a thread runs while others are ready.", valueName: "ns"))
  var slice = SimulationSettings().slice

  @Flag(
    help:
      "Readers of a semaphore sleep at once, as Linux's since 5.11, where Rangeland's own poll first."
  )
  var sleepingReaders = false

  @Flag(help: "Print JSON.")
  var json = false

  private func wantedCores() throws -> [Int] {
    let numbers = cores.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    guard !numbers.isEmpty, numbers.allSatisfy({ $0.map { (1...64).contains($0) } ?? false })
    else {
      throw ValidationError(
        "--cores takes numbers from 1 to 64, such as 2,8,32; beyond 64 processors nothing is claimed"
      )
    }
    return numbers.compactMap { $0 }.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
  }

  private func wantedPolicies() throws -> [LockPolicy] {
    guard let policy else { return LockPolicy.allCases }
    let found = policy.split(separator: ",", omittingEmptySubsequences: false)
      .map { LockPolicy(rawValue: String($0)) }
    guard !found.isEmpty, found.allSatisfy({ $0 != nil }) else {
      let names = LockPolicy.allCases.map(\.rawValue).joined(separator: ", ")
      throw ValidationError("--policy takes \(names), separated by commas")
    }
    return found.compactMap { $0 }.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
  }

  func validate() throws {
    let (cores, policies) = (try wantedCores(), try wantedPolicies())
    if trace != nil, cores.count != 1 || policies.count != 1 {
      throw ValidationError("--trace takes one run: name one --policy and one number with --cores")
    }
    let times = [("fault", faultTime), ("wake", wakeTime ?? 0), ("handover", handoverTime ?? 0)]
    for (name, value) in times where value > 1_000_000_000 {
      throw ValidationError("--\(name)-time takes nanoseconds up to 1000000000")
    }
    if !(1000...1_000_000_000).contains(slice) {
      throw ValidationError("--slice takes nanoseconds from 1000 to 1000000000")
    }
  }

  func run() throws {
    let path = try file ?? ShippedRecordings.path()
    var settings = SimulationSettings()
    settings.fault = faultTime
    settings.wake = wakeTime
    settings.handover = handoverTime
    settings.slice = slice
    settings.readersSleep = sleepingReaders
    let simulated = try SimulatedRecording(path, settings: settings)
    let wanted = try wantedCores()
    let most = simulated.program.mostCores
    let cores = wanted.filter { $0 <= most }
    guard !cores.isEmpty else {
      throw OutputFailure(
        reason:
          "\(path): the recording has no scheduler events and gets no more than \(most) processors; "
          + "record it again with them, or ask for fewer (--cores)")
    }
    let policies = try wantedPolicies()
    let runs: [SimulationRun]
    if let trace {
      let run = try Simulation.trace(
        simulated.program, policy: policies[0], cores: cores[0], settings: settings, to: trace,
        title: "\(simulated.name) under .\(policies[0]) on \(cores[0]) processors"
      ) { _ in Interruption.isRequested }
      guard let run else { throw Interrupted() }
      runs = [run]
    } else {
      runs = try simulated.run(policies: policies, cores: cores, settings: settings)
    }
    let report = SimulationReport(
      program: simulated.program, runs: runs, leftOut: wanted.filter { $0 > most },
      settings: settings)
    try Terminal.print(
      json
        ? JSON.document([
          "name": .string(simulated.name), "program": .string(simulated.recorded),
          "simulated": report.document(),
        ])
        : "\(simulated.name): \(simulated.recorded), \(simulated.program.threadCount) threads, "
          + "\(simulated.program.operations) operations\n\n" + report.text())
  }
}
