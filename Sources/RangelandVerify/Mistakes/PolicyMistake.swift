// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about memory policies.

import Rangeland

enum PolicyMistake: String, MistakeFamily {
  /// mbind over a hole binds what is mapped, where Linux changes nothing.
  case bindAroundHole
  /// The default policy is refused over a hole too.
  case unbindNeedsNoHole
  /// The policy of shared memory belongs to the mapping: a second one, or one that moves, has none.
  case policyOfMapping
  /// mbind forgets the mode's flags.
  case bindForgetsFlags
  /// An address without a policy shows the thread's.
  case addressShowsThreadPolicy
  /// set_mempolicy forgets the mode's flags.
  case threadPolicyForgetsFlags
  /// Nodes are told as allowed where they are kept as asked for.
  case askedNodesAreLost
  /// The child's thread has no policy.
  case forkForgetsThreadPolicy

  static var kinds: [VerifyCall.Kind] {
    [.mbind, .getPolicy, .setPolicy, .mremap, .mmap, .munmap, .fork]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenPolicy(self, inner) }
}

private final class MistakenPolicy: MistakenSubject {
  private let mistake: PolicyMistake

  init(_ mistake: PolicyMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  /// The modes that were set for pages of shared memory, where they are mapped now.
  private var modes: [UInt64: UInt64] = [:]

  override func forget(_ start: UInt64, _ length: UInt64) {
    super.forget(start, length)
    for page in pages(start, length) { modes[page] = nil }
  }

  /// Answers from what was bound at the addresses.
  private func performByMapping(_ call: VerifyCall) -> VerifyOutcome {
    var outcome = inner.perform(call)
    guard outcome.succeeded(call) else { return outcome }
    switch call.kind {
    case .mbind:
      for page in pages(call.at, call.length) { modes[page] = call.protection }
    case .mremap: modes = [:]
    case .mmap: forget(UInt64(outcome.result), call.length)
    case .munmap: forget(call.at, call.length)
    case .getPolicy
    where call.asksMode && inner.mappings(call.at, call.at + 1).first?.isShared == true:
      let mode = UInt32(truncatingIfNeeded: modes[call.at & ~4095] ?? 0)
      outcome.output = withUnsafeBytes(of: mode) { [UInt8]($0) }
    default: break
    }
    return outcome
  }

  private func ask(_ call: VerifyCall) -> VerifyOutcome {
    var outcome = inner.perform(call)
    if mistake == .askedNodesAreLost, call.value == 1, outcome.result == 0 {
      for i in outcome.output.indices { outcome.output[i] &= i == 0 ? 1 : 0 }
    }
    guard mistake == .addressShowsThreadPolicy, call.asksMode, outcome.result == 0,
      outcome.output.allSatisfy({ $0 == 0 })
    else { return outcome }
    var own = call
    (own.at, own.flags) = (0, 0)
    return inner.perform(own)
  }

  override func fork() -> (any VerifySubject)? {
    let child = inner.copy()
    if mistake == .forkForgetsThreadPolicy { child?.space.threadPolicy = .default }
    return child
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if mistake == .policyOfMapping { return performByMapping(call) }
    if call.kind == .getPolicy { return ask(call) }
    if mistake == .threadPolicyForgetsFlags, call.kind == .setPolicy {
      var call = call
      call.protection &= 0xfff
      return inner.perform(call)
    }
    guard call.kind == .mbind, isOrdinary(call), call.at % 4096 == 0 else {
      return super.perform(call)
    }
    var call = call
    let end = call.at + (call.length + 4095) / 4096 * 4096
    let mapped = inner.mappings(call.at, end)
    let shape = Coverage.shape(mapped, call.at, end)
    switch mistake {
    case .policyOfMapping, .addressShowsThreadPolicy, .threadPolicyForgetsFlags, .askedNodesAreLost,
      .forkForgetsThreadPolicy:
      break
    case .bindForgetsFlags: call.protection &= 0xfff
    case .unbindNeedsNoHole:
      if shape == "gaps" && call.protection == 0 { return VerifyOutcome(.badAddress) }
    case .bindAroundHole:
      let result = super.perform(call)
      guard result.result == -14, shape == "gaps" else { return result }
      for mapping in mapped {
        var part = call
        part.at = max(call.at, mapping.start)
        part.length = min(end, mapping.end) - part.at
        _ = inner.perform(part)
      }
      return result
    }
    return super.perform(call)
  }
}

extension VerifyCall {
  /// Whether get_mempolicy asks for the mode of an address.
  fileprivate var asksMode: Bool { flags == PolicyCall.ofAddress && value == 0 }
}
