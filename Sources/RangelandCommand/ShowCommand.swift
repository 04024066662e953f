// SPDX-License-Identifier: Apache-2.0
//
// `rangeland show FILE`: what is in a recording.

import ArgumentParser
import RangelandReplay

struct ShowCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Summarise a recording.")

  @Argument(help: "The recording; without it, the one that ships with Rangeland.")
  var file: String?

  @Option(
    help: ArgumentHelp(
      """
      Show the call chains that waited longest for mmap_lock, and those they waited for; of a recording made with \
      record --call-chains.
      """, valueName: "number"))
  var callChains: Int?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    if let callChains, !(1...100).contains(callChains) {
      throw ValidationError("--call-chains is a number from 1 to 100")
    }
  }

  func run() throws {
    let path = try file ?? ShippedRecordings.path()
    let recording = try Recording(path: path)
    if Interruption.isRequested { throw Interrupted() }
    if callChains != nil && recording.chains.isEmpty {
      throw RecordingError(
        .nothingRecorded, file: path, at: .file, "the recording has no call chains",
        advice: "record with --call-chains dwarf")
    }
    let waits = callChains.flatMap { _ in RecordedWaits(recording) }
    let summary = RecordingSummary(recording)
    if json {
      try Terminal.print(document(path, recording, summary, waits))
    } else {
      try Terminal.print(
        table(path, recording, summary)
          + (waits.map { ChainReport.allFunctions($0, limit: callChains ?? 0) } ?? ""))
    }
  }

  private func document(
    _ path: String, _ recording: Recording, _ summary: RecordingSummary, _ waits: RecordedWaits?
  ) -> String {
    let info = recording.info
    return JSON.document([
      "recording": .string(path), "program": .string(info.program), "note": .string(info.note),
      "source": .string(info.source), "pageSize": .unsigned(info.pageSize),
      "initialLayout": .string(info.layoutOrigin.name),
      "seconds": .number(Double(summary.durationNanoseconds) / 1e9),
      "threads": .count(summary.threads),
      "threadsAtOnce": summary.threadsAtOnce.map { .count($0) } ?? .null,
      "calls": .array(
        summary.calls.map {
          .object([
            "kind": .string($0.kind.name), "count": .count($0.count), "failed": .count($0.failed),
            "changing": .count($0.changing),
          ])
        }), "totalCalls": .count(summary.totalCalls),
      "changingCalls": .count(summary.changingCalls),
      "userFaults": .count(summary.userFaults), "kernelFaults": .count(summary.kernelFaults),
      "writeFaults": .count(summary.writeFaults),
      "unmappedFaults": .count(summary.unmappedFaults),
      "touchedPages": .count(summary.touchedPages),
      "initialAreas": .count(summary.initialAreas), "peakAreas": .count(summary.peakAreas),
      "lowestAddress": summary.mappedSpan.map { .unsigned($0.lowerBound) } ?? .null,
      "highestAddress": summary.mappedSpan.map { .unsigned($0.upperBound) } ?? .null,
      "acquisitions": info.eventClasses.contains(.acquisitions)
        ? .object([
          "readers": .count(summary.locking.readers), "writers": .count(summary.locking.writers),
          "refused": .count(summary.locking.refused),
          "waitedNanoseconds": .unsigned(summary.locking.waited),
          "longestWaitNanoseconds": .unsigned(summary.locking.longestWait),
          "heldNanoseconds": .unsigned(summary.locking.held),
        ]) : .null,
      "scheduling": info.eventClasses.contains(.switches)
        ? .object([
          "switches": .count(summary.switches), "preemptions": .count(summary.preemptions),
          "wakeUps": info.eventClasses.contains(.wakeUps) ? .count(summary.wakeUps) : .null,
        ]) : .null, "callChains": .count(recording.chains.count),
      "waitingChains": waits.map {
        .array($0.chains.prefix(callChains ?? 0).map { ChainReport.document($0) })
      } ?? .null, "waitingChainCount": waits.map { .count($0.chainCount) } ?? .null,
      "machine": info.machine.map { .object($0.fields) } ?? .null,
      "omissions": .array(
        info.omissions.map {
          .object(["name": .string($0.name), "count": .unsigned($0.count)])
        }),
    ])
  }

  private func table(
    _ path: String, _ recording: Recording, _ summary: RecordingSummary
  ) -> String {
    let info = recording.info
    var rows: [(String, String)] = [
      ("program", info.program),
      ("span", Self.seconds(summary.durationNanoseconds)),
      (
        "threads",
        "\(summary.threads)" + (summary.threadsAtOnce.map { ", at most \($0) at once" } ?? "")
      ),
      ("calls", "\(summary.totalCalls), \(summary.changingCalls) of them changed mappings"),
      ("faults", "\(summary.userFaults) by the program, \(summary.kernelFaults) by the kernel"),
      ("", "\(summary.writeFaults) writes; \(summary.touchedPages) pages touched"),
      (
        "mappings",
        "\(summary.initialAreas) at the start (\(info.layoutOrigin.name)), "
          + "\(summary.peakAreas) at the peak"
      ),
    ]
    if summary.unmappedFaults > 0 {
      rows.append(("", "\(summary.unmappedFaults) faults outside of them"))
    }
    if let span = summary.mappedSpan {
      rows.append(
        ("addresses", String(span.lowerBound, radix: 16) + "-" + String(span.upperBound, radix: 16))
      )
    }
    rows += Self.waiting(info, summary)
    if !recording.chains.isEmpty {
      rows.append(
        (
          "chains",
          "\(recording.chains.count) call chains of \(recording.chains.frames.count) functions"
        ))
    }
    rows += info.machine.map(\.rows) ?? []
    for omission in info.omissions {
      rows.append(("left out", "\(omission.count) \(omission.name)"))
    }
    rows.append(("made from", info.source))
    for (index, line) in info.note.split(separator: "\n").enumerated() {
      rows.append((index == 0 ? "note" : "", String(line)))
    }
    var text = "\(path)\n"
    for (key, value) in rows { text += "  \(Self.padded(key, 11))\(value)\n" }
    if !summary.calls.isEmpty {
      text += "\n  \(Self.padded("call", 20))     count    failed  changing\n"
    }
    for calls in summary.calls {
      text += "  \(Self.padded(calls.kind.name, 20))"
      for value in [calls.count, calls.failed, calls.changing] {
        let digits = String(value)
        text += String(repeating: " ", count: max(1, 10 - digits.count)) + digits
      }
      text += "\n"
    }
    return text
  }

  /// What is known of the kernel's lock and scheduler.
  private static func waiting(
    _ info: RecordingInfo, _ summary: RecordingSummary
  ) -> [(String, String)] {
    var rows: [(String, String)] = []
    if info.eventClasses.contains(.acquisitions) {
      let locking = summary.locking
      rows.append(
        (
          "mmap_lock",
          "\(locking.readers) readers and \(locking.writers) writers waited "
            + "\(milliseconds(locking.waited)), at most \(milliseconds(locking.longestWait))"
        ))
      let refused = locking.refused == 0 ? "" : "; \(locking.refused) did not get it"
      rows.append(("", "held \(milliseconds(locking.held))\(refused)"))
    }
    if info.eventClasses.contains(.switches) {
      let wakeUps =
        info.eventClasses.contains(.wakeUps) ? "\(summary.wakeUps) wake-ups" : "wake-ups unknown"
      rows.append(
        (
          "scheduler",
          "\(summary.switches) times off a processor, \(summary.preemptions) of them preempted; "
            + wakeUps
        ))
    }
    return rows
  }

  private static func milliseconds(_ nanoseconds: UInt64) -> String {
    "\(CompareReport.fixed(Double(nanoseconds) / 1e6, 3)) ms"
  }

  private static func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(1, width - text.count))
  }

  private static func seconds(_ nanoseconds: UInt64) -> String {
    let milliseconds = String(nanoseconds / 1_000_000 % 1000)
    let zeros = String(repeating: "0", count: 3 - milliseconds.count)
    return "\(nanoseconds / 1_000_000_000).\(zeros)\(milliseconds) s"
  }
}
