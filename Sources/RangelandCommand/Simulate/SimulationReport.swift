// SPDX-License-Identifier: Apache-2.0
//
// What simulations came to, for people and as JSON: `simulate`, and the second part of `compare`.

import Foundation
import Rangeland
import RangelandReplay

struct SimulationReport {
  var program: SimulationProgram
  /// Policies first.
  var runs: [SimulationRun]
  /// Numbers of processors that were asked for and are more than the recording allows.
  var leftOut: [Int]
  var settings: SimulationSettings

  private var policies: [LockPolicy] {
    runs.reduce(into: []) { if !$0.contains($1.policy) { $0.append($1.policy) } }
  }

  private var cores: [Int] {
    runs.reduce(into: []) { if !$0.contains($1.cores) { $0.append($1.cores) } }
  }

  // MARK: text

  func text() -> String {
    var text = calibration() + "\n"
    text += table(
      "run time, ms", " \(cores.count > 1 ? "by processors" : "on \(cores[0]) processors")"
    ) {
      Self.fixed(Double($0.nanoseconds) / 1e6, 1)
    }
    text += table("waited for the lock, ms (all threads)", "") {
      Self.fixed($0.waits.waitSeconds * 1e3, 2)
    }
    text += table("  of it falsely, ms", "") { Self.fixed($0.waits.falseWaitSeconds * 1e3, 2) }
    text += table("waits", "") { String($0.waits.waits) }
    text += table("  99 in 100 below, us", "") {
      Self.fixed(Double($0.waits.waitP99Nanoseconds) / 1e3, 1)
    }
    text += table("wanted a processor, ms", "") { Self.fixed(Double($0.readyNanoseconds) / 1e6, 1) }
    text += blocked()
    text += chains()
    return text
  }

  /// Where the times come from, in words.
  private func calibration() -> String {
    func milliseconds(_ nanoseconds: UInt64) -> String { Self.fixed(Double(nanoseconds) / 1e6, 1) }
    var text = ""
    if program.calibration == .full {
      text +=
        "recorded: \(milliseconds(program.recordedNanoseconds)) ms; threads ran \(milliseconds(program.runningNanoseconds)) ms and were "
        + "blocked \(milliseconds(program.blockedNanoseconds)) ms (kept); waits for a processor, "
        + "\(milliseconds(program.readyNanoseconds)) ms, and for the lock, \(milliseconds(program.lockWaitNanoseconds)) ms, are taken out\n"
    } else {
      text +=
        "UNCALIBRATED: no scheduler events. Time between operations passes whatever the thread did in it; only the holds "
        + "use processors.\n"
    }
    text +=
      program.hasRecordedHolds
      ? "holds: as long as the kernel's were; "
      : "holds: as long as the calls took; "
    text += "a fault without a recorded hold takes \(settings.fault) ns\n"
    text +=
      "passing the lock on: \(settings.handover(program)) ns to a thread that polls, \(settings.wake(program)) ns to one that sleeps\n"
    if settings.readersSleep {
      text += "readers of a semaphore sleep at once, as Linux's, and do not poll as Rangeland's\n"
    }
    if program.strayAcquisitions > 0 {
      text +=
        "\(program.strayAcquisitions) acquisitions belong to no recorded call or fault and are not simulated\n"
    }
    if !leftOut.isEmpty {
      text +=
        "left out: \(leftOut.map(String.init).joined(separator: ", ")) processors; without scheduler events not more than "
        + "\(program.mostCores)\n"
    }
    return text
  }

  private static let labelWidth = 40
  private static let columnWidth = 13

  private static func line(_ label: String, _ cells: [String]) -> String {
    let padding = String(repeating: " ", count: max(1, labelWidth - label.count))
    return label + padding
      + cells.map { String(repeating: " ", count: max(1, columnWidth - $0.count)) + $0 }.joined()
      + "\n"
  }

  /// One figure: a line for each number of processors, a column for each policy.
  private func table(
    _ title: String, _ note: String, _ figure: (SimulationRun) -> String
  ) -> String {
    var text = note.isEmpty ? "" : Self.line(title + note, policies.map(\.rawValue))
    if note.isEmpty { text += title + "\n" }
    for number in cores {
      text += Self.line(
        "  \(number)",
        policies.map { policy in
          runs.first { $0.policy == policy && $0.cores == number }.map(figure) ?? "-"
        })
    }
    return text
  }

  /// Pairs that are printed; `--json` has all.
  private static let pairLimit = 8

  /// Who waited for whom on the most processors.
  private func blocked() -> String {
    guard let most = cores.max() else { return "" }
    struct Pair: Hashable {
      var operation: OperationKind
      var blocker: OperationKind?
    }
    let found = policies.map { policy in runs.first { $0.policy == policy && $0.cores == most } }
    var seconds: [Pair: Double] = [:]
    for blocked in found.flatMap({ $0?.waits.blocked ?? [] }) {
      seconds[Pair(operation: blocked.operation, blocker: blocked.blocker), default: 0] +=
        blocked.waitSeconds
    }
    if seconds.isEmpty { return "" }
    let pairs = seconds.keys.sorted {
      (seconds[$1]!, $0.operation.rawValue, $0.blocker?.rawValue ?? .max)
        < (seconds[$0]!, $1.operation.rawValue, $1.blocker?.rawValue ?? .max)
    }
    var text = "operation x blocking operation on \(most) processors: waits / ms\n"
    for pair in pairs.prefix(Self.pairLimit) {
      text += Self.line(
        "  \(pair.operation.name) x \(pair.blocker?.name ?? "being woken")",
        found.map { run in
          let blocked = run?.waits.blocked.first {
            $0.operation == pair.operation && $0.blocker == pair.blocker
          }
          return blocked.map { "\($0.waits) / \(Self.fixed($0.waitSeconds * 1e3, 2))" } ?? "-"
        })
    }
    if pairs.count > Self.pairLimit {
      text += "  and \(pairs.count - Self.pairLimit) pairs more: --json has all\n"
    }
    return text
  }

  /// Chains that are printed; `--json` has more.
  private static let chainLimit = 3

  /// Which code waited on the most processors, where call chains are recorded.
  private func chains() -> String {
    guard let most = cores.max() else { return "" }
    let found = policies.map { policy in
      runs.first { $0.policy == policy && $0.cores == most }?.chains ?? []
    }
    let shown = SimulationRun.longestChains(found)
    if shown.isEmpty { return "" }
    var text = "call chains that wait longest on \(most) processors: waits / ms\n"
    for chain in shown.prefix(Self.chainLimit) {
      let frames = chain.chain.map(program.chains.chain) ?? []
      text += ChainReport.indented(
        "\(chain.operation.recordedName): \(CallChains.line(frames))", by: 2)
      text += Self.line(
        "",
        found.map { run in
          let waits = run.first(where: chain.isAlike)
          return waits.map {
            "\($0.waits) / \(Self.fixed(Double($0.nanoseconds) / 1e6, 2))"
          } ?? "-"
        })
    }
    if shown.count > Self.chainLimit {
      text +=
        "  and \(shown.count - Self.chainLimit) chains more: --json has \(SimulationRun.chainLimit) of each run\n"
    }
    return text
  }

  private static func fixed(_ value: Double, _ digits: Int) -> String {
    String(format: "%.\(digits)f", value)
  }

  // MARK: JSON

  func document() -> JSON {
    .object([
      "calibrated": .bool(program.calibration == .full),
      "recordedSeconds": .number(Double(program.recordedNanoseconds) / 1e9),
      "runningSeconds": .number(Double(program.runningNanoseconds) / 1e9),
      "blockedSeconds": .number(Double(program.blockedNanoseconds) / 1e9),
      "removedReadySeconds": .number(Double(program.readyNanoseconds) / 1e9),
      "removedLockWaitSeconds": .number(Double(program.lockWaitNanoseconds) / 1e9),
      "recordedHolds": .bool(program.hasRecordedHolds),
      "strayAcquisitions": .count(program.strayAcquisitions),
      "operations": .count(program.operations),
      "processorsLeftOut": .array(leftOut.map { .count($0) }),
      "faultNanoseconds": .unsigned(settings.fault),
      "wakeNanoseconds": .unsigned(settings.wake(program)),
      "handoverNanoseconds": .unsigned(settings.handover(program)),
      "sliceNanoseconds": .unsigned(settings.slice),
      "sleepingReaders": .bool(settings.readersSleep), "runs": .array(runs.map { document($0) }),
    ])
  }

  private func document(_ run: SimulationRun) -> JSON {
    .object([
      "policy": .string(run.policy.rawValue), "processors": .count(run.cores),
      "seconds": .number(Double(run.nanoseconds) / 1e9),
      "busySeconds": .number(Double(run.busyNanoseconds) / 1e9),
      "readySeconds": .number(Double(run.readyNanoseconds) / 1e9),
      "dependencyWaitSeconds": .number(Double(run.orderNanoseconds) / 1e9),
      "waits": .unsigned(run.waits.waits), "falseWaits": .unsigned(run.waits.falseWaits),
      "waitSeconds": .number(run.waits.waitSeconds),
      "falseWaitSeconds": .number(run.waits.falseWaitSeconds),
      "waitP50Nanoseconds": .unsigned(run.waits.waitP50Nanoseconds),
      "waitP99Nanoseconds": .unsigned(run.waits.waitP99Nanoseconds),
      "waitMaxNanoseconds": .unsigned(run.waits.waitMaxNanoseconds),
      "blocked": .array(
        run.waits.blocked.map { blocked in
          .object([
            "operation": .string(blocked.operation.name),
            "blocker": blocked.blocker.map { .string($0.name) } ?? .null,
            "waits": .unsigned(blocked.waits), "waitSeconds": .number(blocked.waitSeconds),
            "falseWaitSeconds": .number(blocked.falseWaitSeconds),
          ])
        }),
      "waitingChainCount": .count(run.chainCount),
      "waitingChains": .array(
        run.chains.map { chain in
          .object([
            "operation": chain.operation.map { .string($0.name) } ?? .null,
            "waits": .unsigned(chain.waits),
            "waitSeconds": .number(Double(chain.nanoseconds) / 1e9),
            "falseWaitSeconds": .number(Double(chain.falseNanoseconds) / 1e9),
            "functions": ChainReport.document(chain.chain.map(program.chains.chain) ?? []),
          ])
        }),
    ])
  }
}
