// SPDX-License-Identifier: Apache-2.0
import RangeLocksExploration

let arguments = CommandLine.arguments
let p = ExploredProgram(arguments[1])
let bound = arguments.count > 2 ? Int(arguments[2]) : nil
let m = arguments.count > 3 ? SearchMemory(rawValue: arguments[3])! : .states
for model in MemoryModel.allCases {
  print(p.explore(ExplorationBounds(model, memory: m, preemptions: bound)).summary)
}
