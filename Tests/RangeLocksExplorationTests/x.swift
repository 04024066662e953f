// SPDX-License-Identifier: Apache-2.0
import Testing
import RangeLocksExploration
@Test func foo2() { print(ExploredProgram("w0 - | w0 -").explore(ExplorationBounds(.sequential, preemptions: nil)).summary) }
