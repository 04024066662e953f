// SPDX-License-Identifier: Apache-2.0
//
// The call chains of waits, in the first part of `compare` and in `show --call-chains`.

import Rangeland
import RangelandReplay

enum ChainReport {
  /// Chains that are printed; `--json` has more.
  private static let chainLimit = 3

  /// The chains that waited longest, in a line or a few each.
  ///
  /// A recording with chains shows where waits come from; how long they are, one without shows better.
  static func longest(_ waits: RecordedWaits) -> String {
    if waits.chains.isEmpty { return "" }
    let shown = waits.chains.prefix(chainLimit)
    var text = "call chains that waited longest, \(shown.count) of \(waits.chainCount)"
    text += " (`show --call-chains N` has all functions)\n"
    for chain in shown {
      text += indented(
        "\(head(chain)): \(CallChains.line(chain.frames, withKernel: chain.operation == nil))",
        by: 2)
      guard let blocker = chain.blockers.first else { continue }
      text += indented(
        "\(percent(blocker.nanoseconds, of: chain.nanoseconds)) behind \(blocker.operation.recordedName): "
          + CallChains.line(blocker.frames, withKernel: blocker.operation == nil), by: 6)
    }
    return text
  }

  /// The chains that waited longest, a line a function.
  static func allFunctions(_ waits: RecordedWaits, limit: Int) -> String {
    if waits.chains.isEmpty { return "\nnobody waited for mmap_lock\n" }
    let shown = waits.chains.prefix(limit)
    var text = "\ncall chains that waited longest, \(shown.count) of \(waits.chainCount)\n"
    for chain in shown {
      text +=
        "\n  \(head(chain)), \(percent(chain.falseNanoseconds, of: chain.nanoseconds)) of it false, "
        + "the longest \(milliseconds(chain.longest)) ms\n"
      text += functions(chain.frames)
      for blocker in chain.blockers {
        text +=
          "    \(percent(blocker.nanoseconds, of: chain.nanoseconds)) behind \(blocker.operation.recordedName), "
          + "\(counted(blocker.waits))\n"
        text += functions(blocker.frames)
      }
    }
    return text
  }

  private static func functions(_ frames: [CallChains.Frame]) -> String {
    let lines = frames.isEmpty ? [CallChains.noChain] : CallChains.telling(frames).map(\.described)
    return lines.map { "        \($0)\n" }.joined()
  }

  private static func head(_ chain: ChainWaits) -> String {
    "\(chain.operation.recordedName) \(milliseconds(chain.nanoseconds)) ms in \(counted(chain.waits))"
  }

  private static func counted(_ count: UInt64) -> String {
    count == 1 ? "1 wait" : "\(count) waits"
  }

  private static func milliseconds(_ nanoseconds: UInt64) -> String {
    CompareReport.fixed(Double(nanoseconds) / 1e6, 3)
  }

  private static func percent(_ part: UInt64, of whole: UInt64) -> String {
    whole == 0 ? "0 %" : "\(CompareReport.fixed(Double(part) / Double(whole) * 100, 0)) %"
  }

  /// Wrapped text whose first line stands `columns` to the right, and the others further.
  static func indented(_ text: String, by columns: Int) -> String {
    let lines = CompareReport.wrapped(text, width: 96 - columns).split(separator: "\n")
    return lines.enumerated().map { index, line in
      String(repeating: " ", count: columns + (index == 0 ? 0 : 4)) + line + "\n"
    }.joined()
  }

  static func document(_ chain: ChainWaits) -> JSON {
    .object([
      "operation": chain.operation.map { .string($0.name) } ?? .null,
      "waits": .unsigned(chain.waits), "waitSeconds": .number(Double(chain.nanoseconds) / 1e9),
      "falseWaitSeconds": .number(Double(chain.falseNanoseconds) / 1e9),
      "waitMaxNanoseconds": .unsigned(chain.longest), "functions": document(chain.frames),
      "blockers": .array(
        chain.blockers.map { blocker in
          .object([
            "operation": blocker.operation.map { .string($0.name) } ?? .null,
            "waits": .unsigned(blocker.waits),
            "waitSeconds": .number(Double(blocker.nanoseconds) / 1e9),
            "functions": document(blocker.frames),
          ])
        }),
    ])
  }

  static func document(_ frames: [CallChains.Frame]) -> JSON {
    .array(
      frames.map {
        .object([
          "function": .string($0.function), "module": .string($0.module),
          "kernel": .bool($0.isKernel),
        ])
      })
  }
}
