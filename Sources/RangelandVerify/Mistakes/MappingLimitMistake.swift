// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong where it has as many mappings as it may have.

import Rangeland

enum MappingLimitMistake: String, MistakeFamily {
  /// Advice cuts mappings beyond the limit.
  case adviceAtMappingLimit
  /// Advice that the limit refuses says that there is no memory, not that it is to be tried again.
  case adviceAtMappingLimitSaysNoMemory
  /// A mapping is refused at the limit, not beyond it.
  case mapStopsAtMappingLimit
  /// munmap in the middle of a mapping cuts it in two beyond the limit.
  case unmapAtMappingLimit
  /// mremap that shrinks the middle of a mapping cuts it in two beyond the limit.
  case shrinkAtMappingLimit
  /// A mapping that could grow where it is needs room for another one.
  case growthNeedsAnotherMapping

  static var kinds: [VerifyCall.Kind] {
    [.mappingLimit, .mmap, .munmap, .mprotect, .madvise, .mremap]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenMappingLimit(self, inner) }
}

private final class MistakenMappingLimit: MistakenSubject {
  private let mistake: MappingLimitMistake

  init(_ mistake: MappingLimitMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    guard let limit = inner.space.limits.mappingCount, isOrdinary(call) else {
      return super.perform(call)
    }
    let count = inner.space.usage.mappings
    switch (mistake, call.kind) {
    case (.mapStopsAtMappingLimit, .mmap) where count == limit:
      return VerifyOutcome(.noMemory)
    case (.growthNeedsAnotherMapping, .mremap) where count > limit && call.newLength > call.length:
      return VerifyOutcome(.noMemory)
    case (.adviceAtMappingLimitSaysNoMemory, .madvise):
      let outcome = super.perform(call)
      return outcome == VerifyOutcome(.resourceTemporarilyUnavailable)
        ? VerifyOutcome(.noMemory) : outcome
    case (.adviceAtMappingLimit, .madvise), (.unmapAtMappingLimit, .munmap),
      (.shrinkAtMappingLimit, .mremap):
      inner.space.limits.mappingCount = nil
      defer { inner.space.limits.mappingCount = limit }
      return super.perform(call)
    default: return super.perform(call)
    }
  }
}
