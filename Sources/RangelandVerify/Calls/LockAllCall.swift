// SPDX-License-Identifier: Apache-2.0
//
// mlockall and munlockall: the helper's own memory is locked with the windows', and the subject's outside of them.

import CKernelProtocol
import Rangeland

struct LockAllCall: CallDefinition {
  var unlocks: Bool

  var fields: [CallField] { unlocks ? [] : [CallField("flags", \.flags, isHex: false)] }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  // MARK: made up

  // Locks end more often than they begin: under MCL_FUTURE the limit refuses much of what scripts are about.
  var weight: UInt64 { unlocks ? 2 : 1 }
  var edgeWeight: UInt64 { unlocks ? 0 : 1 }
  var needs: [VerifyCall.Kind] {
    unlocks ? [.mmap, .mlock, .mlockall] : [.capset, .mmap, .munlockall, .setrlimit]
  }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    VerifyCall(
      unlocks ? .munlockall : .mlockall, VerifyAddress(nil, 0), 0,
      flags: unlocks ? 0 : generator.random.pick([1, 1, 2, 2, 2, 3, 5, 6, 6, 7]))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    VerifyCall(
      .mlockall, VerifyAddress(nil, 0), 0,
      flags: generator.random.pick([0, 4, 8, 9, 1 << 32, 1 << 32 | 2, 1 << 31]))
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    unlocks ? KernelRequest(KP_SYS_munlockall) : KernelRequest(KP_SYS_mlockall, call.flags)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { [] }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  var keepsWhatItDid: Bool { true }

  // MARK: coverage

  func coverageName(_ call: VerifyCall) -> String {
    if unlocks { return "munlockall" }
    return call.flags & 1 != 0 ? "mlockall-current" : "mlockall-future"
  }

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    var list: [Coverage.Requirement] =
      unlocks
      ? [.init("munlockall", "ok", 20)]
      : [
        .init("mlockall-future", "ok", 20), .init("mlockall-future", "EINVAL", 1),
        .init("mlockall-current", "ENOMEM", 5),
      ]
    if !unlocks && KernelProcess.mayLockEverything {
      list.append(.init("mlockall-current", "ok", 5))
    }
    return list.map(\.withOneThread)
  }
}

/// Whether locks have no limit: CAP_IPC_LOCK of the helper, where that may have it. The length is 1 or 0.
struct PrivilegeCall: CallDefinition {
  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool { call.length <= 1 && KernelProcess.mayLockEverything }

  // MARK: made up

  var weight: UInt64 { KernelProcess.mayLockEverything ? 2 : 0 }
  var edgeWeight: UInt64 { 0 }
  var needs: [VerifyCall.Kind] { [.mmap, .mlock, .munlock] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    VerifyCall(.capset, VerifyAddress(nil, 0), generator.random.pick([0, 0, 1]))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    VerifyCall(.capset, VerifyAddress(nil, 0), 0)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(operation: KP_PRIVILEGE, call.length)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    KernelProcess.mayLockEverything ? [] : nil
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    space.limits.canLockBeyondLimit = call.length != 0
    return .success
  }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    KernelProcess.mayLockEverything
      ? [Coverage.Requirement("capset", "ok", 20).withOneThread] : []
  }
}

extension KernelProcess {
  /// Whether a helper can lock all that it has.
  static let mayLockEverything: Bool = {
    do throws(VerifyError) {
      return try KernelProcess().lockableOutside > 0
    } catch {
      return false
    }
  }()
}
