// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about accesses.

import Rangeland

enum AccessMistake: String, MistakeFamily {
  /// Memory that may be written and not read refuses loads.
  case writeOnlyNotReadable
  /// A refused access reports MAPERR where it is ACCERR.
  case faultCode
  /// A first load leaves no page behind.
  case loadNotResident

  static var kinds: [VerifyCall.Kind] {
    [.load, .store, .mmap, .munmap, .mprotect]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenAccess(self, inner) }
}

private final class MistakenAccess: MistakenSubject {
  private let mistake: AccessMistake

  init(_ mistake: AccessMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if mistake == .writeOnlyNotReadable, call.kind == .load, call.at < 1 << 46,
      rights(call.at) == 2
    {
      return VerifyOutcome(signal: 11, code: 2, faultAddress: call.at)
    }
    var result = super.perform(call)
    if mistake == .faultCode, call.isAccess, result.code == 2 { result.code = 1 }
    return result
  }

  override func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64] {
    let pages = super.presentPages(start, end)
    return mistake == .loadNotResident ? pages.filter { !loaded.contains($0) } : pages
  }
}
