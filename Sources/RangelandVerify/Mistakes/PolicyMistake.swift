// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about memory policies.

import Rangeland

enum PolicyMistake: String, MistakeFamily {
  /// mbind over a hole binds what is mapped, where Linux changes nothing.
  case bindAroundHole
  /// The default policy is refused over a hole too.
  case unbindNeedsNoHole
  /// mbind forgets the mode's flags.
  case bindForgetsFlags

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenPolicy(self, inner) }
}

private final class MistakenPolicy: MistakenSubject {
  private let mistake: PolicyMistake

  init(_ mistake: PolicyMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    guard call.kind == .mbind, isOrdinary(call), call.at % 4096 == 0 else {
      return super.perform(call)
    }
    var call = call
    let end = call.at + (call.length + 4095) / 4096 * 4096
    let mapped = inner.mappings(call.at, end)
    let shape = Coverage.shape(mapped, call.at, end)
    switch mistake {
    case .bindForgetsFlags: call.protection &= 0xfff
    case .unbindNeedsNoHole:
      if shape == "gaps" && call.protection == 0 { return VerifyOutcome(.badAddress) }
    case .bindAroundHole:
      let result = super.perform(call)
      guard result.result == -14, shape == "gaps" else { return result }
      for mapping in mapped {
        var part = call
        part.at = max(call.at, mapping.start)
        part.length = min(end, mapping.end) - part.at
        _ = inner.perform(part)
      }
      return result
    }
    return super.perform(call)
  }
}
