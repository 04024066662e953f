// SPDX-License-Identifier: Apache-2.0
//
// Explores with a planted mistake switched on.

import ExploredRangeLocks

extension PlantedMistake {
  /// The exploration that its list names, with the mistake.
  public func hunt() -> ExplorationReport {
    activeMistake = id
    defer { activeMistake = 0 }
    return prey.exploreUpwards(to: preemptions, memoryModel)
  }

  /// The same exploration without it: shows that it is the mistake that was caught.
  public func control() -> ExplorationReport {
    prey.explore(ExplorationBounds(memoryModel, preemptions: preemptions))
  }

  var memoryModel: MemoryModel { model == "buffers" ? .storeBuffers : .sequential }

  private var prey: ExploredProgram {
    guard let subject = ExploredProgram.Subject(rawValue: subject) else {
      fatalError(
        "\(name): what is explored is one of lock, directory, throughput, semaphore: \(subject)")
    }
    return ExploredProgram(program, subject: subject)
  }
}
