// SPDX-License-Identifier: Apache-2.0
//
// munmap.

import CKernelProtocol
import Rangeland

struct UnmapCall: CallDefinition {
  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  // MARK: made up

  var weight: UInt64 { 12 }
  var edgeWeight: UInt64 { 2 }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    let length = generator.length(subject, window, offset)
    // Sometimes much, so that a script does not fill up.
    return VerifyCall(
      .munmap, VerifyAddress(window, offset),
      generator.random.chance(4) ? generator.room(window, offset) : length)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(.munmap, address, length)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_munmap, call.at, call.length)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    call.pages.map { [$0] } ?? []
  }

  // MARK: coverage

  var required: [Coverage.Requirement] {
    Coverage.shapes.map { .init("munmap", "ok", before: $0, 10) } + [.init("munmap", "EINVAL", 5)]
  }
}
