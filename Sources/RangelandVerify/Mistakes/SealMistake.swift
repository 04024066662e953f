// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about seals.

import Rangeland

enum SealMistake: String, MistakeFamily {
  /// Nothing is sealed.
  case sealForgotten
  /// A seal keeps mprotect from changing what comes before it.
  case sealStopsWholeProtect
  /// munmap takes away what comes before a seal.
  case sealStopsUnmapLate
  /// mseal over a hole seals what is there.
  case sealOverHole
  /// What is sealed and may be written cannot be thrown away.
  case sealStopsDiscard
  /// A fixed mapping over a seal is the wrong error.
  case sealErrno

  static var kinds: [VerifyCall.Kind] {
    [.mseal, .mmap, .munmap, .mprotect, .madvise, .load, .store]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenSeal(self, inner) }
}

private final class MistakenSeal: MistakenSubject {
  private let mistake: SealMistake

  init(_ mistake: SealMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  private func isSealed(_ mapping: VerifyMapping) -> Bool {
    inner.flagNames(mapping.start).contains("sl")
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    guard isOrdinary(call), call.at % 4096 == 0 else { return super.perform(call) }
    let end = call.at + (call.length + 4095) / 4096 * 4096
    let mapped = inner.mappings(call.at, end)
    switch (mistake, call.kind) {
    case (.sealForgotten, .mseal):
      return call.flags == 0 && Coverage.shape(mapped, call.at, end) != "gaps" && !mapped.isEmpty
        ? .success : super.perform(call)
    case (.sealStopsWholeProtect, .mprotect):
      if mapped.contains(where: isSealed), call.protection & ~15 == 0,
        Coverage.shape(mapped, call.at, end) != "gaps"
      {
        return VerifyOutcome(.notPermitted)
      }
    case (.sealStopsUnmapLate, .munmap):
      if let first = mapped.first(where: isSealed), first.start > call.at {
        _ = inner.perform(VerifyCall(.munmap, call.address, first.start - call.at))
      }
    case (.sealOverHole, .mseal):
      let outcome = super.perform(call)
      if outcome.result == -12 {
        for mapping in mapped {
          let start = max(mapping.start, call.at)
          _ = inner.perform(
            VerifyCall(.mseal, VerifyAddress(nil, start), min(mapping.end, end) - start))
        }
      }
      return outcome
    case (.sealStopsDiscard, .madvise):
      if call.flags == AdviseCall.dontNeed, mapped.count == 1, isSealed(mapped[0]),
        mapped[0].protection & 2 != 0, mapped[0].start <= call.at, mapped[0].end >= end
      {
        return VerifyOutcome(.notPermitted)
      }
    case (.sealErrno, .mmap):
      let outcome = super.perform(call)
      let isSeal =
        outcome == VerifyOutcome(.notPermitted) && call.isFixed && mapped.contains(where: isSealed)
      return isSeal ? VerifyOutcome(.permissionDenied) : outcome
    default: break
    }
    return super.perform(call)
  }
}
