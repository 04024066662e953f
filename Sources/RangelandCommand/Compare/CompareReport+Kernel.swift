// SPDX-License-Identifier: Apache-2.0
//
// The kernel's part of what `compare` measured.

import Rangeland
import RangelandReplay

extension CompareReport {
  /// How the kernel's figures were made, or why there are none, in words.
  static func kernel(_ kernel: KernelMeasurement) -> String {
    switch kernel {
    case .unavailable(let reason): return "the kernel itself was not measured: \(reason)"
    case .measured(let figures):
      var text =
        "kernel: Linux \(RecordedMachine.here().kernel) with the same calls in a helper process, moved to addresses that "
        + "are free there; the kernel counted \(figures.timed.faults) page faults"
      if !figures.leftOut.isEmpty {
        text += "; without a place there: "
        text += figures.leftOut.map { "\($0.count) \($0.kind)" }.joined(separator: ", ")
      }
      return text
    }
  }

  static func document(_ kernel: KernelMeasurement) -> JSON {
    switch kernel {
    case .unavailable(let reason): return .object(["unavailable": .string(reason)])
    case .measured(let figures):
      return .object([
        "release": .string(RecordedMachine.here().kernel),
        "operations": .count(figures.timed.operations),
        "elapsedSeconds": .number(Double(figures.timed.nanoseconds) / 1e9),
        "operationsPerSecond": .number(figures.operationsPerSecond),
        "dependencyWaitSeconds": .number(Double(figures.timed.dependencyNanoseconds) / 1e9),
        "faults": .count(figures.timed.faults), "resultMismatches": .count(figures.mismatches),
        "leftOut": .counts(figures.leftOut),
        "byOperation": .array(figures.byOperation.map(document)),
      ])
    }
  }
}

extension KernelMeasurement.Figures {
  var operationsPerSecond: Double {
    timed.nanoseconds == 0 ? 0 : Double(timed.operations) * 1e9 / Double(timed.nanoseconds)
  }
}
