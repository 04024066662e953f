// SPDX-License-Identifier: Apache-2.0
//
// The range lock's own source, explored: every schedule of small programs within the quick bounds, and every
// planted mistake. Deeper: `swift run -c release ExploreRangeLocks programs`.

import ExploredRangeLocks
import RangeLocksExploration
import RangelandTestSupport
import Testing

/// Explorations share one arena and the switch of the mistakes: one at a time.
@Suite(.serialized)
struct ExplorationTests {
  @Test func everyProgramIsRightUnderEverySchedule() {
    var (executions, states) = (0, 0)
    for (program, about) in ExploredProgram.catalogue {
      for bounds in program.quickBounds {
        let report = withWatchdog(seconds: 120, "exploring \(program)") { program.explore(bounds) }
        executions += report.executions
        states += report.states
        #expect(report.failure == nil, "\(program.subject.rawValue), \(about): \(report.summary)")
        #expect(report.isExhaustive, "\(report.summary)")
      }
    }
    print("exploration: \(executions) executions, \(states) states")
  }

  @Test func everyPlantedMistakeIsCaught() {
    #expect(PlantedMistake.all.count >= 15)
    #expect(Set(PlantedMistake.all.map(\.name)).count == PlantedMistake.all.count)
    for mistake in PlantedMistake.all {
      let report = withWatchdog(seconds: 120, "hunting \(mistake.name)") { mistake.hunt() }
      #expect(report.failure != nil, "\(mistake.name) is not caught: \(report.summary)")
    }
  }

  @Test func aFailureIsReplayedFromItsSchedule() throws {
    let mistake = try #require(PlantedMistake.all.first { $0.name == "switch-forgets-the-holder" })
    let failure = try #require(mistake.hunt().failure)
    let program = ExploredProgram(mistake.program, subject: .lock)
    activeMistake = mistake.id
    let again = program.replay(failure.schedule, .sequential)
    activeMistake = 0
    #expect(again.message == failure.message)
    #expect(!again.trace.isEmpty)
    // The same schedule is harmless, or fits no more, once the mistake is gone.
    #expect(program.replay(failure.schedule, .sequential).message != failure.message)
  }

  /// Mistakes that only store buffers show are invisible without them: the model makes the difference.
  @Test func storeBuffersAreNeededForSomeMistakes() throws {
    for name in ["narrow-publishes-without-barrier", "mode-entered-without-barrier"] {
      let mistake = try #require(PlantedMistake.all.first { $0.name == name })
      #expect(mistake.model == "buffers")
      let program = ExploredProgram(mistake.program, subject: .init(rawValue: mistake.subject)!)
      activeMistake = mistake.id
      let report = program.exploreUpwards(to: mistake.preemptions, .sequential)
      activeMistake = 0
      #expect(report.failure == nil, "\(report.summary)")
    }
  }
}
