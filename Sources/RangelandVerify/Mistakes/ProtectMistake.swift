// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about mprotect.

import Rangeland

enum ProtectMistake: String, MistakeFamily {
  /// mprotect over a hole changes nothing, where Linux keeps what came before it.
  case protectRolledBack
  /// mprotect goes on behind a hole.
  case protectBehindHole
  /// mprotect changes the whole mapping instead of its part.
  case protectWholeMapping
  /// What could be written stays so after mprotect.
  case protectLeavesWrite

  static var kinds: [VerifyCall.Kind] {
    [.mprotect, .mmap, .munmap, .load, .store]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenProtect(self, inner) }
}

private final class MistakenProtect: MistakenSubject {
  private let mistake: ProtectMistake
  /// Pages from which mprotect took the right to write.
  private var stale: Set<UInt64> = []

  init(_ mistake: ProtectMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if call.kind == .mprotect { return protect(call) }
    let result = super.perform(call)
    if mistake == .protectLeavesWrite, call.kind == .store, result.code == 2,
      stale.contains(call.at & ~4095)
    {
      return .success
    }
    return result
  }

  override func forget(_ start: UInt64, _ length: UInt64) {
    super.forget(start, length)
    for page in pages(start, length) { stale.remove(page) }
  }

  private func protect(_ call: VerifyCall) -> VerifyOutcome {
    guard isOrdinary(call), call.at % 4096 == 0 else { return super.perform(call) }
    var call = call
    let end = call.at + (call.length + 4095) / 4096 * 4096
    let mapped = inner.mappings(call.at, call.at + call.length)
    switch mistake {
    case .protectWholeMapping:
      if mapped.count == 1, let only = mapped.first, only.start <= call.at, only.end >= end,
        only.end - only.start < 1 << 30
      {
        (call.at, call.length) = (only.start, only.end - only.start)
      }
    case .protectLeavesWrite:
      for page in pages(call.at, call.length) where (rights(page) ?? 0) & 2 != 0 {
        stale.insert(page)
      }
    case .protectRolledBack:
      if Coverage.shape(mapped, call.at, end) == "gaps" { return VerifyOutcome(.noMemory) }
    case .protectBehindHole: break
    }
    let result = super.perform(call)
    if mistake == .protectBehindHole, result.result == -12 {
      for mapping in mapped {
        var part = call
        part.at = max(call.at, mapping.start)
        part.length = min(end, mapping.end) - part.at
        _ = inner.perform(part)
      }
    }
    return result
  }
}
