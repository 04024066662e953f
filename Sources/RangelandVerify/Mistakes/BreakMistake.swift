// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about the break.

import Rangeland

enum BreakMistake: String, MistakeFamily {
  /// A break that cannot move is an error.
  case breakIsErrno
  /// The break is rounded up to a page.
  case breakRoundsUp
  /// The heap may touch the mapping behind it.
  case breakNeedsNoFreePage
  /// A heap that becomes shorter keeps its last pages.
  case breakLeavesPages
  /// The limit of data does not hold for the heap.
  case breakIgnoresLimit
  /// A mapping inside the heap keeps it from becoming shorter.
  case breakStopsAtMapping

  static var kinds: [VerifyCall.Kind] {
    [.brk, .setrlimit, .load, .store, .mmap, .munmap, .mprotect]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenBreak(self, inner) }
}

private final class MistakenBreak: MistakenSubject {
  private let mistake: BreakMistake
  private var dataLimit = UInt64.max
  /// Where the break is said to be, if that is not where it is.
  private var claimed: UInt64?

  init(_ mistake: BreakMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  private var current: UInt64 {
    UInt64(inner.perform(VerifyCall(.brk, VerifyAddress(nil, 0), 0)).result)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if call.kind == .setrlimit && call.at == LimitCall.data { dataLimit = call.length }
    guard call.kind == .brk, call.at < 1 << 47 else { return super.perform(call) }
    let old = current
    let wanted = (call.at + 4095) & ~4095
    switch mistake {
    case .breakIsErrno:
      let outcome = super.perform(call)
      return outcome.result == Int64(call.at) || call.at == 0
        ? outcome : VerifyOutcome(.noMemory)
    case .breakRoundsUp:
      let outcome = super.perform(call)
      return VerifyOutcome(result: (outcome.result + 4095) & ~4095)
    case .breakNeedsNoFreePage:
      let outcome = super.perform(call)
      let end = (old + 4095) & ~4095
      guard outcome.result != Int64(call.at), wanted > end,
        inner.mappings(end, wanted).isEmpty, !inner.mappings(wanted, wanted + 4096).isEmpty
      else { return outcome }
      return inner.perform(
        VerifyCall(
          .mmap, VerifyAddress(nil, end), wanted - end, protection: 3, flags: 0x32)
      ).result < 0 ? outcome : VerifyOutcome(result: Int64(call.at))
    case .breakLeavesPages:
      if call.at < old && wanted < (old + 4095) & ~4095 {
        let heap = inner.mappings(wanted, (old + 4095) & ~4095)
        if !heap.isEmpty { return VerifyOutcome(result: Int64(call.at)) }
      }
      return super.perform(call)
    case .breakIgnoresLimit:
      if dataLimit == .max { return super.perform(call) }
      _ = inner.perform(VerifyCall(.setrlimit, VerifyAddress(nil, LimitCall.data), .max))
      defer {
        _ = inner.perform(VerifyCall(.setrlimit, VerifyAddress(nil, LimitCall.data), dataLimit))
      }
      return super.perform(call)
    case .breakStopsAtMapping:
      let end = (old + 4095) & ~4095
      if wanted < end, inner.mappings(wanted, end).count > 1 {
        return VerifyOutcome(result: Int64(old))
      }
      return super.perform(call)
    }
  }
}
