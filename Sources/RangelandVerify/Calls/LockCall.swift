// SPDX-License-Identifier: Apache-2.0
//
// mlock, mlock2 and munlock.

import CKernelProtocol
import Rangeland

struct LockCall: CallDefinition {
  var kind: VerifyCall.Kind

  private var locks: Bool { kind != .munlock }

  var fields: [CallField] {
    kind == .mlock2 ? [CallField("flags", \.flags, isHex: false)] : []
  }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  // MARK: made up

  var weight: UInt64 { kind == .mlock2 ? 2 : 4 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { locks ? [.mmap, .setrlimit, .munlock] : [.mmap, .mlock] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    var window: VerifyWindow
    var offset: UInt64
    var length: UInt64
    if generator.random.chance(85), let found = generator.mapped(subject) {
      (window, offset, length) = found
    } else {
      (window, offset) = generator.place(subject)
      length = generator.length(subject, window, offset)
    }
    // Any address: both ends are rounded outward.
    if generator.random.chance(20) {
      let inside = generator.random.below(4096)
      offset += inside
      length -= min(length, inside + generator.random.below(4096))
    }
    return VerifyCall(
      kind, VerifyAddress(window, offset), length,
      flags: kind == .mlock2 ? generator.random.pick([0, 1, 1]) : 0)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(
      kind, address, length,
      flags: kind == .mlock2 ? generator.random.pick([0, 1, 2, 1 << 32]) : 0)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    switch kind {
    case .mlock: KernelRequest(KP_SYS_mlock, call.at, call.length)
    case .mlock2: KernelRequest(KP_SYS_mlock2, call.at, call.length, call.flags)
    default: KernelRequest(KP_SYS_munlock, call.at, call.length)
    }
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    let length = (call.length &+ (call.at & 4095) &+ 4095) & ~4095
    let start = call.at & ~4095
    // Nothing, beyond the space, a wrap, or a hole at the beginning, where it ends.
    if length == 0 || start >= Address.spaceEnd || start &+ length < start || start < 4096 {
      return []
    }
    return [KernelProcess.AddressPair(start: start, end: start + length)]
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool {
    !locks || subject.mayLock(call.length / 4096 + 2, areas)
  }

  var keepsWhatItDid: Bool { true }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { changed(call) }

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? { changed(call) }

  private func changed(_ call: VerifyCall) -> KernelProcess.AddressPair? {
    var call = call
    call.length = (call.length &+ (call.at & 4095) &+ 4095) & ~4095
    call.at &= ~4095
    return call.pages
  }

  var required: [Coverage.Requirement] {
    let name = kind.rawValue
    var list: [Coverage.Requirement] = []
    for shape in ["whole", "head", "tail", "middle"] {
      list.append(.init(name, "ok", before: shape, 2))
    }
    // What is locked seldom meets what is locked already; what is unlocked, often.
    for joined in kind == .munlock ? Coverage.joints : kind == .mlock ? ["left", "right"] : [] {
      list.append(.init(name, "ok", joined: joined, 1))
    }
    list += [
      .init(name, "ok", 50), .init(name, "ENOMEM", before: "hole", 2),
      .init(name, "ENOMEM", before: "gaps", 1),
    ]
    if locks { list.append(Coverage.Requirement(name, "EPERM", 1).withOneThread) }
    return list
  }
}

extension VerifySubject {
  /// Whether a thread that has `areas` may lock so many pages more, whatever other threads lock: as much of the limit
  /// as any number of threads leaves it.
  func mayLock(_ pages: UInt64, _ areas: [KernelProcess.AddressPair]) -> Bool {
    let share = LimitCall.highest(LimitCall.lockedMemory) / 4096 / UInt64(Verification.mostThreads)
    return pages <= share && areas.reduce(0) { $0 + lockedPages($1) } <= share - pages
  }
}
