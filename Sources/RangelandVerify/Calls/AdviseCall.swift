// SPDX-License-Identifier: Apache-2.0
//
// madvise.

import CKernelProtocol
import Rangeland

struct AdviseCall: CallDefinition {
  static var dontNeed: UInt64 { 4 }

  var fields: [CallField] { [CallField("advice", \.flags, isHex: false)] }

  func isKnown(_ call: VerifyCall) -> Bool { call.flags == Self.dontNeed }

  // MARK: made up

  var weight: UInt64 { 6 }
  var edgeWeight: UInt64 { 1 }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    let length = generator.length(subject, window, offset)
    return VerifyCall(.madvise, VerifyAddress(window, offset), length, flags: Self.dontNeed)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(.madvise, address, length, flags: Self.dontNeed)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_madvise, call.at, call.length, call.flags)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { call.reachUpToItsEnd }

  // MARK: coverage

  var required: [Coverage.Requirement] {
    Coverage.shapes.map {
      .init("madvise", Coverage.needsNoHole($0), before: $0, 5)
    } + [.init("madvise", "EINVAL", 2)]
  }
}
