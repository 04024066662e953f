// SPDX-License-Identifier: Apache-2.0
//
// mprotect.

import CKernelProtocol
import Rangeland

struct ProtectCall: CallDefinition {
  var fields: [CallField] { [CallField("prot", \.protection, isHex: false)] }

  func isKnown(_ call: VerifyCall) -> Bool { call.protection & Self.growth == 0 }

  /// `PROT_GROWSDOWN`, `PROT_GROWSUP`.
  private static var growth: UInt64 { 0x300_0000 }

  // MARK: made up

  var weight: UInt64 { 16 }
  var edgeWeight: UInt64 { 2 }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    let length = generator.length(subject, window, offset)
    return VerifyCall(
      .mprotect, VerifyAddress(window, offset), length, protection: generator.rights())
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    // PROT_SEM is let through, other bits are not.
    let extra: UInt64 = generator.random.pick([0, 0, 0, 8, 0x10, 1 << 40])
    return VerifyCall(.mprotect, address, length, protection: generator.rights() | extra)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_mprotect, call.at, call.length, call.protection)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { call.reachUpToItsEnd }

  var keepsWhatItDid: Bool { true }

  // MARK: coverage

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? { call.pages }

  var required: [Coverage.Requirement] {
    Coverage.shapes.map {
      .init("mprotect", Coverage.needsNoHole($0), before: $0, 20)
    } + Coverage.joints.map { .init("mprotect", "ok", joined: $0, 10) }
      + [.init("mprotect", "EINVAL", 2)]
  }
}

extension VerifyCall {
  /// The reach of a call that does what is mapped up to its end and does not look for the end of the space.
  var reachUpToItsEnd: [KernelProcess.AddressPair] {
    guard at % 4096 == 0, let length = roundedLength, length != 0, at < Address.spaceEnd else {
      return []
    }
    let (end, overflow) = at.addingReportingOverflow(length)
    return overflow ? [] : [KernelProcess.AddressPair(start: at, end: end)]
  }
}
