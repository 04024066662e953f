// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about mincore.

import Rangeland

enum ResidencyMistake: String, MistakeFamily {
  /// Pages that were only read are told absent.
  case zeroPageIsAbsent
  /// A hole is told absent, where Linux refuses it.
  case holeIsAbsent

  static var kinds: [VerifyCall.Kind] {
    [.mincore, .mmap, .munmap, .load, .store]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenResidency(self, inner) }
}

private final class MistakenResidency: MistakenSubject {
  private let mistake: ResidencyMistake

  init(_ mistake: ResidencyMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    var result = super.perform(call)
    guard call.kind == .mincore, isOrdinary(call), call.at % 4096 == 0 else { return result }
    switch mistake {
    case .zeroPageIsAbsent:
      for i in result.output.indices where loaded.contains(call.at + UInt64(i) * 4096) {
        result.output[i] = 0
      }
    case .holeIsAbsent:
      if result.result == -12 {
        result = .success
        result.output = [UInt8](repeating: 0, count: Int((call.length + 4095) / 4096))
      }
    }
    return result
  }
}
