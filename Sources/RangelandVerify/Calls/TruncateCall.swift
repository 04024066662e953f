// SPDX-License-Identifier: Apache-2.0
//
// ftruncate: `newLength` is the descriptor, `value` the size.

import CKernelProtocol
import Rangeland

struct TruncateCall: CallDefinition {
  var fields: [CallField] {
    [CallField("file", \.newLength, isHex: false), CallField("size", \.value)]
  }

  func isKnown(_ call: VerifyCall) -> Bool { call.newLength < VerifyFiles.descriptorCount }

  var weight: UInt64 { 2 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .mapFile, .load, .store] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    var call = VerifyCall(.truncate, VerifyAddress(nil, 0), 0)
    call.newLength = generator.random.pick([0, 0, 3, 3, 1, 2, 6, 7])
    call.value = generator.random.below(16) * 4096
    if generator.random.chance(30) { call.value += generator.random.below(4096) }
    return call
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    var call = VerifyCall(.truncate, VerifyAddress(nil, 0), 0)
    call.newLength = generator.random.below(VerifyFiles.descriptorCount)
    call.value = generator.random.pick([1 << 63, .max, 0])
    return call
  }

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_ftruncate, call.newLength, call.value)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { [] }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    let requirements: [Coverage.Requirement] = [
      .init("ftruncate", "ok", 20), .init("ftruncate", "EINVAL", 3),
      .init("ftruncate", "errno 9", 2),
    ]
    return requirements.map(\.withOneThread)
  }
}
