// SPDX-License-Identifier: Apache-2.0
//
// madvise: `flags` is the advice.

import CKernelProtocol
import Rangeland

struct AdviseCall: CallDefinition {
  static var dontNeed: UInt64 { 4 }

  var fields: [CallField] { [CallField("advice", \.flags, isHex: false)] }

  /// The machine's failures (`MADV_HWPOISON`, `MADV_SOFT_OFFLINE`) are no matter of a space.
  func isKnown(_ call: VerifyCall) -> Bool { call.flags != 100 && call.flags != 101 }

  // MARK: made up

  var weight: UInt64 { 11 }
  var edgeWeight: UInt64 { 2 }
  var needs: [VerifyCall.Kind] { [.mmap, .store, .load] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, place) = generator.place(subject)
    var offset = place
    var length = generator.length(subject, window, offset)
    var start = generator.absolute(window, offset)
    // In one mapping, more often than not.
    if generator.random.chance(75), let found = subject.mappings(start, start + length).first {
      let end = min(start + length, found.end)
      start = max(start, found.start)
      length = end - start
      offset = start - generator.absolute(window, 0)
    }
    // Linux rounds a length up.
    if length > 0, generator.random.chance(20) {
      length -= generator.random.below(min(length, 4096))
    }
    let first = subject.mappings(start, start &+ max(length, 1)).first
    let isShared = first?.isShared ?? false
    let onFile = first.map { $0.file != 0 } ?? false
    let ofFile: [Advice] = [.remove, .remove, .willNeed, .dontNeed]
    let isForFile = onFile && generator.random.chance(25)
    let advice: Advice =
      switch isForFile ? 21 : generator.random.below(21) {
      case 21: generator.random.pick(ofFile)
      case 0..<6 where isShared:
        // Seldom: behind it a script learns nothing more of residency.
        generator.random.chance(5)
          ? .pageOut : generator.random.pick([.remove, .remove, .dontNeed])
      case 0..<4: .dontNeed
      case 4..<12:
        // Few of them often, so that neighbours come to be equal.
        generator.random.pick([
          .dontFork, .dontFork, .doFork, .doFork, .random, .sequential, .normal, .normal,
          .mergeable, .unmergeable, .hugePage, .noHugePage, .dontDump, .doDump, .wipeOnFork,
          .keepOnFork,
        ])
      case 12..<16: generator.random.pick([.populateRead, .populateWrite])
      case 16..<18: generator.random.pick([.installGuard, .installGuard, .removeGuard])
      default:
        generator.random.pick([
          .free, .free, .cold, .willNeed, .dontNeedLocked, .collapse, .remove,
        ])
      }
    return VerifyCall(
      .madvise, VerifyAddress(window, offset), length, flags: UInt64(advice.rawValue))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    let advice: UInt64 = generator.random.pick([
      4, 4, 8, 10, 12, 14, 3, 20, 21, 22, 23, 24, 25, 102, 103, 5, 26, 99, 104, 1 << 32 | 4,
    ])
    return VerifyCall(.madvise, address, length, flags: advice)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_madvise, call.at, call.length, call.flags)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { call.reachUpToItsEnd }

  var keepsWhatItDid: Bool { true }

  /// `MADV_PAGEOUT` of private memory: which of the pages that `MADV_FREE` released go is the kernel's own matter.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    switch Advice(rawValue: Int32(truncatingIfNeeded: call.flags)) {
    case .pageOut: !call.meets(subject, where: { !$0.isShared })
    default: true
    }
  }

  // MARK: coverage

  func coverageName(_ call: VerifyCall) -> String {
    switch Advice(rawValue: Int32(truncatingIfNeeded: call.flags)) {
    case .dontNeed, .dontNeedLocked: "madvise-dontneed"
    case .free: "madvise-free"
    case .populateRead, .populateWrite: "madvise-populate"
    case .installGuard, .removeGuard: "madvise-guard"
    case .willNeed, .cold, .pageOut, .collapse: "madvise-pages"
    case .remove: "madvise-remove"
    case .some: "madvise-attribute"
    case nil: "madvise-unknown"
    }
  }

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? {
    coverageName(call) == "madvise-attribute" ? call.pages : nil
  }

  var required: [Coverage.Requirement] {
    var list: [Coverage.Requirement] = []
    for shape in Coverage.shapes {
      let answer = Coverage.needsNoHole(shape)
      list.append(.init("madvise-dontneed", answer, before: shape, 1))
      list.append(.init("madvise-attribute", answer, before: shape, 1))
      // Over several mappings it is made four times in a run as a rule: too seldom to demand it.
      if shape != "several" { list.append(.init("madvise-guard", answer, before: shape, 1)) }
    }
    for joint in Coverage.joints { list.append(.init("madvise-attribute", "ok", joined: joint, 3)) }
    return list + [
      .init("madvise-free", "ok", 5), .init("madvise-free", "EINVAL", 2),
      .init("madvise-populate", "ok", 20), .init("madvise-populate", "ENOMEM", 5),
      .init("madvise-populate", "EINVAL", 5),
      .init("madvise-pages", "ok", 5), .init("madvise-pages", "EINVAL", 5),
      .init("madvise-remove", "ok", 5), .init("madvise-remove", "EINVAL", 2),
      .init("madvise-unknown", "EINVAL", 2),
    ]
  }
}

extension VerifyCall {
  /// `MADV_PAGEOUT`.
  var isGuard: Bool {
    kind == .madvise && Advice(rawValue: Int32(truncatingIfNeeded: flags)) == .installGuard
  }

  var isPageOut: Bool {
    kind == .madvise && Advice(rawValue: Int32(truncatingIfNeeded: flags)) == .pageOut
  }
}
