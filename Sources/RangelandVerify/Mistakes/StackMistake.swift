// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about stacks that grow.

import Rangeland

enum StackMistake: String, MistakeFamily {
  /// The gap that has to stay free below a stack is a page too long.
  case stackGapTooLong
  /// It is a page too short.
  case stackGapTooShort
  /// What a stack grows by is not counted.
  case growthNotCounted
  /// A stack grows beyond its limit.
  case growthBeyondLimit
  /// What a mapping without rights below a stack keeps it from growing.
  case stackStopsAtNone

  static var kinds: [VerifyCall.Kind] {
    [.mmap, .munmap, .mprotect, .setrlimit, .load, .store]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenStack(self, inner) }
}

private final class MistakenStack: MistakenSubject {
  private let mistake: StackMistake
  private var limit = UInt64.max
  /// Pages that stacks have grown by.
  private var grown = 0

  init(_ mistake: StackMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if call.kind == .setrlimit && call.at == LimitCall.stack { limit = call.length }
    guard call.isAccess, call.at < 1 << 47, let stack = stackAbove(call.at) else {
      return super.perform(call)
    }
    let page = call.at & ~4095
    let gap: UInt64 = 256 * 4096
    switch mistake {
    case .stackGapTooLong where accessible(page - gap - 4096, page - gap):
      return refusal(call)
    case .stackGapTooShort
    where accessible(page - gap, page - gap + 4096) && !accessible(page - gap + 4096, page):
      // It grows a page less, and gets the page by another way.
      _ = inner.perform(
        VerifyCall(.store, VerifyAddress(nil, page + 4096), 1, value: 0))
      guard inner.mappings(page + 4096, page + 8192).first != nil else { break }
      _ = inner.perform(
        VerifyCall(.mmap, VerifyAddress(nil, page), 4096, protection: 3, flags: 0x132))
    case .growthBeyondLimit where limit != .max:
      _ = inner.perform(VerifyCall(.setrlimit, VerifyAddress(nil, LimitCall.stack), .max))
      defer {
        _ = inner.perform(VerifyCall(.setrlimit, VerifyAddress(nil, LimitCall.stack), limit))
      }
      return super.perform(call)
    case .stackStopsAtNone:
      let below = page > gap ? inner.mappings(page - gap, page) : []
      if below.contains(where: { $0.protection == 0 }) { return refusal(call) }
    case .growthNotCounted:
      let outcome = super.perform(call)
      if outcome.signal == 0 { grown += Int(stack.start - page) / 4096 }
      return outcome
    default: break
    }
    return super.perform(call)
  }

  /// The stack that an access would extend.
  private func stackAbove(_ address: UInt64) -> VerifyMapping? {
    guard let next = inner.mappings(address, address &+ (1 << 24)).first, next.start > address,
      inner.flagNames(next.start).contains("gd")
    else { return nil }
    return next
  }

  private func accessible(_ start: UInt64, _ end: UInt64) -> Bool {
    inner.mappings(start, end).contains {
      $0.protection != 0 && !inner.flagNames($0.start).contains("gd")
    }
  }

  private func refusal(_ call: VerifyCall) -> VerifyOutcome {
    VerifyOutcome(signal: 11, code: 1, faultAddress: call.at)
  }

  override func sizes() -> VerifySizes {
    var sizes = super.sizes()
    sizes.stack -= grown
    return sizes
  }
}
