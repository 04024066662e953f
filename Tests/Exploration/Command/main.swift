// SPDX-License-Identifier: Apache-2.0
//
// Explores the range lock beyond what the tests do, hunts mistakes, and replays schedules.

import ArgumentParser
import ExploredRangeLocks
import RangeLocksExploration

struct ExploreRangeLocks: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ExploreRangeLocks",
    abstract: "Runs the range lock's own source under every schedule of small programs.",
    subcommands: [Programs.self, Mistakes.self, Replay.self, One.self])
}

/// Says that something was found.
struct Found: Error, CustomStringConvertible {
  let description: String
}

/// Explores every program of the catalogue.
struct Programs: ParsableCommand {
  @Flag(help: "Only what the tests explore.") var quick = false
  @Option(help: "Most executions of one exploration.") var executions = 300_000

  func run() throws {
    var (executed, operations, states, failures) = (0, 0, 0, 0)
    for (program, about) in ExploredProgram.catalogue {
      print("\(program.subject.rawValue): \(about)")
      let bounds = quick ? program.quickBounds : program.deepBounds(executions: executions)
      for bound in bounds {
        let report = program.explore(bound)
        print("  \(report.summary)")
        executed += report.executions
        operations += report.operations
        states += report.states
        if report.failure != nil { failures += 1 }
      }
    }
    print(
      "\(executed) executions, \(operations) operations, \(states) states, \(failures) failures")
    if failures != 0 { throw Found(description: "\(failures) explorations failed") }
  }
}

/// Switches each planted mistake on and explores until it is caught.
struct Mistakes: ParsableCommand {
  @Argument(help: "A part of the names.") var part = ""
  @Flag(help: "Print the failures whole.") var traces = false
  @Flag(help: "Print a table in Markdown.") var markdown = false

  func run() throws {
    var missed = 0
    if markdown { print("| mistake | what is wrong | caught by | as |\n|---|---|---|---|") }
    for mistake in PlantedMistake.all where part.isEmpty || mistake.name.contains(part) {
      let report = mistake.hunt()
      if report.failure == nil { missed += 1 }
      let caught = report.failure.map { String($0.message.prefix { $0 != ":" }) } ?? "NOT CAUGHT"
      if markdown {
        print(
          "| \(mistake.name) | \(mistake.story) | \(mistake.subject): `\(mistake.program.replacing("|", with: "\\|"))`, "
            + "\(mistake.model), \(report.bounds.preemptions ?? 0) preemptions, "
            + "\(report.executions) executions | \(caught) |")
      } else {
        print("\(mistake.name): \(traces ? report.summary : report.failure?.message ?? caught)")
      }
    }
    if missed != 0 { throw Found(description: "\(missed) mistakes were not caught") }
  }
}

/// Which lock and which memory a program runs with.
struct Setting: ParsableArguments {
  @Option(help: "lock, directory, throughput or semaphore.") var subject = "lock"
  @Flag(help: "Stores go through buffers, as on x86.") var buffers = false
  @Flag(help: "Stores are seen at once (default).") var sequential = false
  @Option(help: "The planted mistake to switch on.") var mistake: String?
  @Flag(help: "A wait that only a deadline ends is part of the program.") var rescue = false

  func apply(_ text: String) throws -> (ExploredProgram, MemoryModel) {
    guard let subject = ExploredProgram.Subject(rawValue: subject) else {
      throw ValidationError("the subject is lock, directory, throughput or semaphore")
    }
    if let mistake {
      guard let planted = PlantedMistake.all.first(where: { $0.name == mistake }) else {
        throw ValidationError("there is no mistake \(mistake)")
      }
      activeMistake = planted.id
    }
    return (
      ExploredProgram(text, subject: subject, deadlinesRescue: rescue),
      buffers ? .storeBuffers : .sequential
    )
  }
}

/// Runs one schedule and prints its operations.
struct Replay: ParsableCommand {
  @OptionGroup var setting: Setting
  @Argument(help: "The program.") var program: String
  @Argument(help: "The schedule, as a failure printed it.") var schedule: String

  func run() throws {
    let (program, model) = try setting.apply(program)
    let result = program.replay(schedule, model)
    print(result.trace, terminator: "")
    print(result.message ?? "nothing fails")
  }
}

/// Explores one program.
struct One: ParsableCommand {
  @OptionGroup var setting: Setting
  @Option(help: "Most preemptions; all interleavings if it is left out.") var preemptions: Int?
  @Option(help: "Waits that end for no reason.") var spurious = 0
  @Option(help: "What is remembered: states, pasts, or 'sleep sets'.") var memory = "states"
  @Argument(help: "The program.") var program: String

  func run() throws {
    let (program, model) = try setting.apply(program)
    guard let memory = SearchMemory(rawValue: memory) else {
      throw ValidationError("--memory is states, pasts or 'sleep sets'")
    }
    print(
      program.explore(
        ExplorationBounds(
          model, memory: memory, preemptions: preemptions, spuriousWakeUps: spurious)
      ).summary)
  }
}

ExploreRangeLocks.main()
