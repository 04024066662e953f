// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about munmap.

import Rangeland

enum UnmapMistake: String, MistakeFamily {
  /// munmap of a hole is ENOMEM.
  case unmapOfHoleFails
  /// munmap leaves the page that its length begins.
  case unmapRoundsDown
  /// munmap reports ENOMEM for a range beyond the end of the space.
  case unmapErrno

  static var kinds: [VerifyCall.Kind] {
    [.munmap, .mmap, .mprotect]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenUnmap(self, inner) }
}

private final class MistakenUnmap: MistakenSubject {
  private let mistake: UnmapMistake

  init(_ mistake: UnmapMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    guard call.kind == .munmap else { return super.perform(call) }
    var call = call
    if mistake == .unmapRoundsDown, call.length > 4096 { call.length &= ~4095 }
    let isHole = isOrdinary(call) && inner.mappings(call.at, call.at + call.length).isEmpty
    let result = super.perform(call)
    switch mistake {
    case .unmapErrno where result.result < 0 && call.at % 4096 == 0 && call.length > 1 << 46:
      return VerifyOutcome(.noMemory)
    case .unmapOfHoleFails where result.result >= 0 && isHole: return VerifyOutcome(.noMemory)
    default: return result
    }
  }
}
