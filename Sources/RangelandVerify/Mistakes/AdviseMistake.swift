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
  /// Advice that is an attribute splits nothing.
  case attributeIsForgotten
  /// Advice that is an attribute splits, and is not listed.
  case attributeIsNotListed
  /// DONTNEED takes guards away.
  case dontNeedTakesGuards
  /// A guard refuses accesses as a missing right does.
  case guardCode
  /// Pages stay where a guard is put.
  case guardKeepsPages
  /// Populating skips mappings without the right, where Linux stops.
  case populateSkips
  /// Populating for writing does what populating for reading does.
  case populateReadsOnly
  /// FREE of shared memory is no error.
  case freeOfShared
  /// REMOVE of shared memory keeps the pages.
  case removeKeepsPages
  /// REMOVE of private memory is no error.
  case removeOfPrivate
  /// REMOVE takes pages behind the range too.
  case removeTakesMore
  /// PAGEOUT and COLD of shared memory lose its contents.
  case pageOutLoses
  /// Wiping on fork is allowed for shared memory.
  case wipeOfShared

  static var kinds: [VerifyCall.Kind] {
    [.madvise, .load, .store, .mmap, .munmap, .mprotect]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenAdvise(self, inner) }
}

private final class MistakenAdvise: MistakenSubject {
  private let mistake: AdviseMistake

  init(_ mistake: AdviseMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if mistake == .guardCode, call.isAccess {
      var result = super.perform(call)
      if result.code == 1, rights(call.at) != nil { result.code = 2 }
      return result
    }
    guard call.kind == .madvise, isOrdinary(call) else { return super.perform(call) }
    guard call.flags == AdviseCall.dontNeed else { return advise(call) }
    if mistake == .dontNeedTakesGuards {
      _ = inner.perform(call.with(.removeGuard))
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
    default: break
    }
    return super.perform(call)
  }

  override func flagNames(_ address: UInt64) -> [String] {
    let names = super.flagNames(address)
    return mistake == .attributeIsNotListed ? names.filter { $0 != "rr" && $0 != "dc" } : names
  }

  /// Advice other than DONTNEED.
  private func advise(_ call: VerifyCall) -> VerifyOutcome {
    guard let advice = Advice(rawValue: Int32(truncatingIfNeeded: call.flags)) else {
      return super.perform(call)
    }
    switch (mistake, advice) {
    case (.attributeIsForgotten, .dontFork): return super.perform(call.with(.willNeed))
    case (.guardKeepsPages, .installGuard): return super.perform(call.with(.willNeed))
    case (.populateReadsOnly, .populateWrite): return super.perform(call.with(.populateRead))
    case (.populateSkips, .populateRead), (.populateSkips, .populateWrite):
      let result = super.perform(call)
      return result.result == -22 && call.at % 4096 == 0 ? .success : result
    case (.removeKeepsPages, .remove):
      return super.perform(call.with(.dontNeed))
    case (.removeOfPrivate, .remove):
      let result = super.perform(call)
      let mapped = inner.mappings(call.at, call.at + call.length)
      return result.result == -22 && call.at % 4096 == 0 && !mapped.isEmpty ? .success : result
    case (.removeTakesMore, .remove):
      let result = super.perform(call)
      var next = call
      next.at = (call.at + call.length + 4095) & ~4095
      next.length = 16 * 4096
      if result == .success { _ = inner.perform(next) }
      return result
    case (.pageOutLoses, .pageOut), (.pageOutLoses, .cold):
      let result = super.perform(call)
      if result == .success { _ = inner.perform(call.with(.remove)) }
      return result
    case (.freeOfShared, .free), (.wipeOfShared, .wipeOnFork):
      let result = super.perform(call)
      let isShared = inner.mappings(call.at, call.at + call.length).contains { $0.isShared }
      return result.result == -22 && isShared && call.at % 4096 == 0 ? .success : result
    default: return super.perform(call)
    }
  }
}

extension VerifyCall {
  /// The same range with other advice.
  fileprivate func with(_ advice: Advice) -> VerifyCall {
    var call = self
    call.flags = UInt64(advice.rawValue)
    return call
  }
}
