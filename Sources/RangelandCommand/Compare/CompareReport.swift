// SPDX-License-Identifier: Apache-2.0
//
// `compare --json`.

import Rangeland
import RangelandReplay

/// What `compare` prints.
struct CompareReport {
  var recordings: [ComparedRecording]

  /// Stands above every table of waits.
  static let warning =
    "replayed without think time: these waits compare policies; they are not what the program waited"

  func json() -> String {
    JSON.document([
      "warning": .string(Self.warning),
      "recordings": .array(recordings.map { Self.document($0) }),
    ])
  }

  private static func document(_ recording: ComparedRecording) -> JSON {
    let plan = recording.comparison.plan
    return .object([
      "name": .string(recording.name), "program": .string(recording.program),
      "threads": .count(recording.threads), "operations": .count(plan.operations),
      "substituted": .counts(plan.substituted), "ambiguousPairs": .count(plan.ambiguousPairs),
      "orderedOperations": .count(plan.orderedSteps), "rounds": .count(recording.comparison.rounds),
      "verdict": .object([
        "weight": .string(recording.report.verdict.weight.rawValue),
        "text": .string(recording.report.verdict.text),
      ]), "recorded": recording.report.waits.map { document($0) } ?? .null,
      "simulated": recording.simulation.document(),
      "rows": .array(recording.comparison.rows.map(document)),
      "kernel": document(recording.comparison.kernel),
      "placement": plan.placement.map { document($0) } ?? .null,
    ])
  }

  private static func document(_ row: PolicyComparison.Row) -> JSON {
    let waits = row.waits
    return .object([
      "policy": .string(row.policy.rawValue), "operations": .count(row.timed.operations),
      "elapsedSeconds": .number(row.timed.seconds),
      "operationsPerSecond": .number(row.operationsPerSecond),
      "waits": .unsigned(waits.waits), "falseWaits": .unsigned(waits.falseWaits),
      "unclassifiedWaits": .unsigned(waits.unclassifiedWaits),
      "waitSeconds": .number(waits.waitSeconds),
      "falseWaitSeconds": .number(waits.falseWaitSeconds),
      "dependencyWaitSeconds": .number(Double(row.timed.dependencyNanoseconds) / 1e9),
      "waitP50Nanoseconds": .unsigned(waits.waitP50Nanoseconds),
      "waitP99Nanoseconds": .unsigned(waits.waitP99Nanoseconds),
      "waitMaxNanoseconds": .unsigned(waits.waitMaxNanoseconds),
      "resultMismatches": .count(row.mismatches),
      "byOperation": .array(row.byOperation.map(document)),
      "blocked": .array(waits.blocked.map(document)),
    ])
  }

  static func document(_ cost: ReplayRun.Operation) -> JSON {
    .object([
      "operation": .string(cost.operation.name), "count": .count(cost.count),
      "medianNanoseconds": .unsigned(cost.medianNanoseconds),
    ])
  }

  private static func document(_ blocked: LockStatistics.Blocked) -> JSON {
    .object([
      "operation": .string(blocked.operation.name),
      "blocker": blocked.blocker.map { .string($0.name) } ?? .null,
      "waits": .unsigned(blocked.waits), "waitSeconds": .number(blocked.waitSeconds),
      "falseWaitSeconds": .number(blocked.falseWaitSeconds),
    ])
  }
}

extension ReplayRun {
  var seconds: Double { Double(nanoseconds) / 1e9 }
}

extension PolicyComparison.Row {
  var waits: LockStatistics { counted.statistics ?? LockStatistics() }

  var operationsPerSecond: Double {
    timed.nanoseconds == 0 ? 0 : Double(timed.operations) / timed.seconds
  }
}
