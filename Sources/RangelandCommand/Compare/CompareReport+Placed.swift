// SPDX-License-Identifier: Apache-2.0
//
// What `compare` says of addresses: those that `.linux` chooses beside those that the kernel answered.

import Rangeland
import RangelandReplay

extension CompareReport {
  private static func address(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }

  static func placed(_ placement: PlacementAgreement) -> String {
    if let problem = placement.problem { return "nothing was placed: \(problem)\n" }
    if placement.asked == 0 { return "the program left no address to the kernel\n" }
    var text = wrapped(
      "\(placement.agreed) of \(placement.asked) addresses that the program left to the kernel are those that .linux "
        + "chooses, call by call in the recorded order, below \(placement.base.map(address) ?? "an unknown base")"
    )
    for request in PlacementAgreement.Request.allCases {
      guard let count = placement.counts[request] else { continue }
      text += line("  \(request.rawValue)", ["\(count.agreed) of \(count.asked)"])
    }
    if placement.alignedByFileSystem > 0 {
      text += line("  of them aligned by a file system", ["\(placement.alignedByFileSystem)"])
    }
    for reason in PlacementAgreement.Reason.allCases {
      guard let count = placement.reasons[reason] else { continue }
      text += wrapped("\(count) elsewhere: \(reason.rawValue)")
    }
    if placement.unfollowed > 0 {
      text += "\(placement.unfollowed) recorded calls could not be followed\n"
    }
    for example in placement.examples { text += "  \(example)\n" }
    return text
  }

  static func document(_ placement: PlacementAgreement) -> JSON {
    if let problem = placement.problem { return .object(["problem": .string(problem)]) }
    return .object([
      "base": placement.base.map { .string(address($0)) } ?? .null,
      "asked": .count(placement.asked), "agreed": .count(placement.agreed),
      "alignedByFileSystem": .count(placement.alignedByFileSystem),
      "unfollowed": .count(placement.unfollowed),
      "requests": .array(
        PlacementAgreement.Request.allCases.compactMap { request in
          placement.counts[request].map {
            .object([
              "request": .string(request.rawValue), "asked": .count($0.asked),
              "agreed": .count($0.agreed),
            ])
          }
        }),
      "elsewhere": .array(
        PlacementAgreement.Reason.allCases.compactMap { reason in
          placement.reasons[reason].map {
            .object(["reason": .string(reason.rawValue), "calls": .count($0)])
          }
        }), "examples": .array(placement.examples.map { .string($0) }),
    ])
  }
}
