// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about locked memory.

import Rangeland

enum LockMistake: String, MistakeFamily {
  /// Memory that is locked once more is counted once more.
  case relockingCountsTwice
  /// munlock leaves the mappings locked.
  case unlockLeavesLock
  /// Memory without rights is not locked.
  case noneIsNotLocked
  /// A lock over a hole goes on behind it.
  case lockBehindHole
  /// A lock over a hole locks nothing.
  case lockRolledBack
  /// MLOCK_ONFAULT brings pages in.
  case onFaultBringsIn
  /// mlock brings nothing in.
  case lockBringsNothing
  /// What is locked already is no credit towards the limit.
  case lockedIsNoCredit
  /// A range that wraps is refused before the limit is looked at.
  case lockErrnoOrder
  /// MCL_FUTURE does not reach mmap.
  case futureIgnoredByMap
  /// MCL_FUTURE does not reach the heap.
  case futureIgnoredByBreak
  /// Advice throws locked pages away.
  case lockedIsThrownAway
  /// MAP_LOCKED beyond the limit is the wrong error.
  case mapLockedErrno
  /// MAP_POPULATE brings nothing in.
  case populateBringsNothing
  /// mlockall locks what will be mapped only.
  case allLocksNothing

  static var kinds: [VerifyCall.Kind] {
    [
      .mlock, .mlock2, .munlock, .mlockall, .munlockall, .setrlimit, .capset, .brk, .mmap, .munmap,
      .mprotect, .madvise, .load, .store,
    ]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenLock(self, inner) }
}

private final class MistakenLock: MistakenSubject {
  private let mistake: LockMistake
  private var extraLocked = 0
  private var isFuture = false

  init(_ mistake: LockMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  private func range(_ call: VerifyCall) -> KernelProcess.AddressPair {
    KernelProcess.AddressPair(
      start: call.at & ~4095, end: (call.at + call.length + 4095) & ~4095)
  }

  private func unlock(_ start: UInt64, _ length: UInt64) {
    _ = inner.perform(VerifyCall(.munlock, VerifyAddress(nil, start), length))
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    let isLock = (call.kind == .mlock || call.kind == .mlock2) && isOrdinary(call)
    switch mistake {
    case .relockingCountsTwice where isLock:
      let before = inner.lockedPages(range(call))
      let outcome = super.perform(call)
      if outcome == .success { extraLocked += Int(before) }
      return outcome
    case .unlockLeavesLock where call.kind == .munlock && isOrdinary(call):
      let range = range(call)
      let mapped = inner.mappings(range.start, range.end)
      return ["gaps", "hole"].contains(Coverage.shape(mapped, range.start, range.end))
        ? super.perform(call) : .success
    case .noneIsNotLocked where isLock:
      let outcome = super.perform(call)
      let range = range(call)
      for mapping in inner.mappings(range.start, range.end) where mapping.protection == 0 {
        let start = max(mapping.start, range.start)
        if outcome.result == -12 { unlock(start, min(mapping.end, range.end) - start) }
      }
      return outcome
    case .lockBehindHole where isLock: return lockBehindHole(call)
    case .lockRolledBack where isLock:
      let range = range(call)
      let mapped = inner.mappings(range.start, range.end)
      if Coverage.shape(mapped, range.start, range.end) == "gaps" {
        return VerifyOutcome(.noMemory)
      }
    case .onFaultBringsIn where call.kind == .mlock2 && isOrdinary(call) && call.flags == 1:
      let outcome = super.perform(call)
      let range = range(call)
      if outcome == .success {
        _ = inner.perform(
          VerifyCall(
            .madvise, VerifyAddress(nil, range.start), range.end - range.start,
            flags: UInt64(Advice.populateRead.rawValue)))
      }
      return outcome
    case .lockBringsNothing where call.kind == .mlock && isOrdinary(call):
      var quiet = VerifyCall(.mlock2, call.address, call.length, flags: 1)
      quiet.thread = call.thread
      let outcome = super.perform(quiet)
      return outcome
    case .lockedIsNoCredit where isLock:
      let range = range(call)
      let before = inner.lockedPages(range)
      let limit = lockLimit
      if before > 0, limit != .max,
        UInt64(max(0, inner.sizes().locked)) + (range.end - range.start) / 4096 > limit
      {
        return VerifyOutcome(.noMemory)
      }
    case .lockErrnoOrder where call.kind == .mlock:
      let rounded = (call.length &+ (call.at & 4095) &+ 4095) & ~4095
      if call.at & ~4095 &+ rounded < call.at & ~4095 { return VerifyOutcome(.invalidArgument) }
    case .futureIgnoredByMap where call.kind == .mmap && isFuture:
      let outcome = super.perform(call)
      if outcome.result >= 0 && call.flags & MapCall.locked == 0 {
        unlock(UInt64(outcome.result), call.length)
      }
      return outcome
    case .futureIgnoredByBreak where call.kind == .brk && isFuture:
      let old = UInt64(inner.perform(VerifyCall(.brk, VerifyAddress(nil, 0), 0)).result)
      let outcome = super.perform(call)
      let new = UInt64(outcome.result)
      if new > old { unlock((old + 4095) & ~4095, ((new + 4095) & ~4095) - ((old + 4095) & ~4095)) }
      return outcome
    case .lockedIsThrownAway
    where call.kind == .madvise && call.flags == AdviseCall.dontNeed && isOrdinary(call):
      var other = call
      other.flags = UInt64(Advice.dontNeedLocked.rawValue)
      return super.perform(other)
    case .mapLockedErrno where call.kind == .mmap && call.flags & MapCall.locked != 0:
      let outcome = super.perform(call)
      return outcome == VerifyOutcome(.resourceTemporarilyUnavailable)
        ? VerifyOutcome(.noMemory) : outcome
    case .populateBringsNothing where call.kind == .mmap:
      var other = call
      other.flags &= ~MapCall.populate
      return super.perform(other)
    case .allLocksNothing where call.kind == .mlockall && call.flags & 3 == 3:
      var other = call
      other.flags &= ~1
      return super.perform(other)
    default: break
    }
    let outcome = super.perform(call)
    if call.kind == .mlockall && outcome == .success { isFuture = call.flags & 2 != 0 }
    if call.kind == .munlockall { isFuture = false }
    if call.kind == .setrlimit && call.at == LimitCall.lockedMemory { lockLimit = call.length }
    if call.kind == .capset { isPrivileged = call.length != 0 }
    return outcome
  }

  private var lockLimitSet = UInt64.max
  private var isPrivileged = false
  private var lockLimit: UInt64 {
    get { isPrivileged ? .max : lockLimitSet }
    set { lockLimitSet = newValue }
  }

  private func lockBehindHole(_ call: VerifyCall) -> VerifyOutcome {
    let range = range(call)
    let outcome = super.perform(call)
    if outcome.result == -12, inner.lockedPages(range) > 0 {
      for mapping in inner.mappings(range.start, range.end) {
        let start = max(mapping.start, range.start)
        _ = inner.perform(
          VerifyCall(
            .mlock2, VerifyAddress(nil, start), min(mapping.end, range.end) - start,
            flags: call.kind == .mlock ? 0 : call.flags))
      }
    }
    return outcome
  }

  override func sizes() -> VerifySizes {
    var sizes = super.sizes()
    sizes.locked += extraLocked
    return sizes
  }
}
