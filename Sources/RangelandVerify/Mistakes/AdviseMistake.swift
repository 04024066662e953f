// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about madvise.

import Rangeland

enum AdviseMistake: String, MistakeFamily {
  /// madvise stops at a hole.
  case adviceStopsAtHole
  /// DONTNEED keeps the pages.
  case adviceKeepsPages
  /// DONTNEED empties shared memory.
  case adviceEmptiesShared
  /// DONTNEED leaves the page that its length begins.
  case adviceRoundsDown

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenAdvise(self, inner) }
}

private final class MistakenAdvise: MistakenSubject {
  private let mistake: AdviseMistake

  init(_ mistake: AdviseMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    guard call.kind == .madvise, call.flags == AdviseCall.dontNeed, isOrdinary(call) else {
      return super.perform(call)
    }
    if mistake == .adviceRoundsDown {
      var shorter = call
      if call.length > 4096 { shorter.length &= ~4095 }
      return super.perform(shorter)
    }
    if call.at % 4096 != 0 { return super.perform(call) }
    let end = call.at + (call.length + 4095) / 4096 * 4096
    switch mistake {
    case .adviceKeepsPages:
      // The answer, without the work.
      let shape = Coverage.shape(inner.mappings(call.at, end), call.at, end)
      return shape == "gaps" || shape == "hole" ? VerifyOutcome(.noMemory) : .success
    case .adviceStopsAtHole:
      var position = call.at
      for mapping in inner.mappings(call.at, end) {
        if mapping.start > position { break }
        position = min(end, mapping.end)
      }
      if position > call.at {
        var part = call
        part.length = position - call.at
        _ = inner.perform(part)
      }
      return position < end ? VerifyOutcome(.noMemory) : .success
    case .adviceEmptiesShared:
      for mapping in inner.mappings(call.at, end)
      where mapping.isShared && mapping.protection & 2 != 0 {
        let start = max(mapping.start, call.at)
        for page in pages(start, min(mapping.end, end) - start) where written.contains(page) {
          for at in stride(from: page, to: page + 4096, by: 8) {
            _ = inner.perform(VerifyCall(.store, VerifyAddress(nil, at), 8))
          }
        }
      }
    case .adviceRoundsDown: break
    }
    return super.perform(call)
  }
}
