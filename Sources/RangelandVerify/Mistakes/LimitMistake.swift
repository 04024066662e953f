// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about its limits.

import Rangeland

enum LimitMistake: String, MistakeFamily {
  /// The limit of sizes allows a page more.
  case limitOffByOne
  /// Memory without rights is not counted.
  case noneIsFree
  /// Pages that a fixed mapping replaces are not credited.
  case replacedNotCredited
  /// Memory that mprotect makes writable is not counted as data.
  case protectedIsNoData
  /// Shared memory is counted as data.
  case sharedIsData
  /// A mapping that is refused leaves what it would have cut in one piece.
  case refusalCutsNothing

  static var kinds: [VerifyCall.Kind] {
    [.setrlimit, .mmap, .munmap, .mprotect, .brk]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenLimits(self, inner) }
}

private final class MistakenLimits: MistakenSubject {
  private let mistake: LimitMistake
  private var sizeLimit = UInt64.max
  private var dataLimit = UInt64.max

  init(_ mistake: LimitMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if call.kind == .setrlimit { return set(call) }
    guard isOrdinary(call) else { return super.perform(call) }
    let pages = (call.length + 4095) / 4096
    let isShared = call.flags & VerifyCall.typeMask == VerifyCall.shared
    switch mistake {
    case .noneIsFree where call.kind == .mmap && call.protection & 7 == 0:
      return without(LimitCall.addressSpace, sizeLimit, call)
    case .protectedIsNoData where call.kind == .mprotect:
      return without(LimitCall.data, dataLimit, call)
    case .replacedNotCredited
    where call.isFixed && !call.isNoReplace && call.at % 4096 == 0 && sizeLimit != .max
      && UInt64(max(0, inner.sizes().virtual)) + pages > sizeLimit:
      return VerifyOutcome(.noMemory)
    case .sharedIsData
    where call.kind == .mmap && isShared && call.protection & 2 != 0 && dataLimit != .max
      && !call.isFixed && UInt64(max(0, inner.sizes().data)) + pages > dataLimit:
      return VerifyOutcome(.noMemory)
    case .refusalCutsNothing where call.isFixed && !call.isNoReplace && call.at % 4096 == 0:
      // Whether it will be refused is known only afterwards: then what was cut is counted as one.
      let before = inner.sizes().mappings
      let outcome = super.perform(call)
      if outcome.result < 0 { joined += inner.sizes().mappings - before }
      return outcome
    default: return super.perform(call)
    }
  }

  /// Mappings that are told as parts of others.
  private var joined = 0

  override func sizes() -> VerifySizes {
    var sizes = super.sizes()
    sizes.mappings -= joined
    return sizes
  }

  private func set(_ call: VerifyCall) -> VerifyOutcome {
    if call.at == LimitCall.data { dataLimit = call.length }
    if call.at == LimitCall.addressSpace { sizeLimit = call.length }
    var call = call
    if mistake == .limitOffByOne && call.length != .max && call.at != LimitCall.stack {
      call.length += 1
    }
    return super.perform(call)
  }

  /// The call without a limit.
  private func without(_ resource: UInt64, _ limit: UInt64, _ call: VerifyCall) -> VerifyOutcome {
    if limit == .max { return super.perform(call) }
    _ = inner.perform(VerifyCall(.setrlimit, VerifyAddress(nil, resource), .max))
    defer { _ = inner.perform(VerifyCall(.setrlimit, VerifyAddress(nil, resource), limit)) }
    return super.perform(call)
  }
}
