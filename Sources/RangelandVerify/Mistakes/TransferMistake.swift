// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about copies between spaces.

import Rangeland

enum TransferMistake: String, MistakeFamily {
  /// What may not be written to is.
  case transferWritesReadOnly
  /// A page that refuses is an error although bytes came before it.
  case transferForgetsPart
  /// What a processor may read may be copied.
  case transferReadsWhatMayBeWritten
  /// The last byte does not come.
  case transferLosesLastByte
  /// Pages behind those that are copied stay as they were.
  case transferBringsInLess
  /// The other space's stack grows.
  case transferGrowsStack
  /// Pieces behind the first are left out.
  case transferForgetsPieces

  static var kinds: [VerifyCall.Kind] {
    [.processRead, .processWrite, .fork, .exit, .mmap, .munmap, .load, .store, .mprotect]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenTransfer(self, inner) }
}

/// Children make the mistakes too: most copies are theirs or to them.
private final class MistakenTransfer: MistakenSubject {
  private let mistake: TransferMistake

  init(_ mistake: TransferMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func fork() -> (any VerifySubject)? {
    inner.copy().map { MistakenTransfer(mistake, $0) }
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    call.kind.isTransfer ? transfer(call, with: self) : super.perform(call)
  }

  override func transfer(_ call: VerifyCall, with other: any VerifySubject) -> VerifyOutcome {
    var call = call
    let remote = other.space
    let isWrite = call.kind == .processWrite
    let start = call.target.offset
    let rights = start < Address.spaceEnd ? remote.mapping(at: start)?.protection : nil
    let isOrdinary = call.length < 1 << 30 && call.newLength < 1 << 30 && call.flags == 0
    if !isOrdinary { return inner.transfer(call, with: other) }
    switch mistake {
    case .transferWritesReadOnly where isWrite && rights == .read:
      return VerifyOutcome(result: Int64(min(call.length, call.newLength)))
    case .transferReadsWhatMayBeWritten where !isWrite && rights == .write:
      return VerifyOutcome(result: Int64(min(call.length, call.newLength)))
    case .transferForgetsPieces where call.localCount == 2 || call.remoteCount == 2:
      if call.localCount == 2 { call.length /= 2 } else { call.newLength /= 2 }
      call.protection = 0x1_0001
    case .transferBringsInLess:
      call.newLength = min(call.length, call.newLength)
      if call.remoteCount > 0 { call.protection = call.protection & 0xffff | 1 << 16 }
    case .transferGrowsStack:
      if rights == nil, start < Address.spaceEnd, isWrite || call.length > 0 {
        _ = try? remote.load(UInt8.self, at: start)
      }
    default: break
    }
    let outcome = inner.transfer(call, with: other)
    if outcome.result <= 0 { return outcome }
    let count = UInt64(outcome.result)
    switch mistake {
    case .transferForgetsPart where count < min(call.length, call.newLength):
      return VerifyOutcome(.badAddress)
    case .transferLosesLastByte where !isWrite && count > 1 && call.localCount == 1:
      try? space.store(UInt8(0xa5), at: call.at + count - 1)
    default: break
    }
    return outcome
  }
}
