// SPDX-License-Identifier: Apache-2.0
//
// setrlimit of RLIMIT_AS and RLIMIT_DATA. The address of the call is the resource, its length how many pages the
// windows may have of it; 2^64 - 1 = no limit.

import CKernelProtocol
import Glibc
import Rangeland
import SystemPackage

struct LimitCall: CallDefinition {
  static var addressSpace: UInt64 { 9 }
  static var data: UInt64 { 2 }

  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool {
    call.address.window == nil && [Self.addressSpace, Self.data].contains(call.address.offset)
  }

  // MARK: made up

  var weight: UInt64 { 4 }
  var edgeWeight: UInt64 { 0 }
  var needs: [VerifyCall.Kind] { [.mmap, .mprotect, .munmap] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let resource = generator.random.pick([Self.addressSpace, Self.data])
    let sizes = subject.sizes()
    let used = UInt64(max(0, resource == Self.data ? sizes.data : sizes.virtual))
    // Mostly none; else little more than there is, or a little less.
    let pages =
      generator.random.chance(90)
      ? UInt64.max
      : used + generator.random.below(24) - min(used, generator.random.pick([0, 0, 8]))
    return VerifyCall(.setrlimit, VerifyAddress(nil, resource), pages)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    VerifyCall(.setrlimit, VerifyAddress(nil, Self.data), .max)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    var request = KernelRequest(KP_SYS_setrlimit, call.at, 0)
    request.bufferArgument = 1
    // The limit, and the limit of limits, which stays.
    request.buffer = [call.newLength, UInt64.max].flatMap { word in
      (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    }
    return request
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { [] }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    let limit = call.newLength == .max ? nil : call.newLength
    if call.at == Self.data {
      space.limits.data = limit
    } else {
      space.limits.addressSpace = limit
    }
    return .success
  }

  // MARK: coverage

  func coverageName(_ call: VerifyCall) -> String {
    call.at == Self.data ? "RLIMIT_DATA" : "RLIMIT_AS"
  }

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    [
      Coverage.Requirement("RLIMIT_AS", "ok", 20).withOneThread,
      Coverage.Requirement("RLIMIT_DATA", "ok", 20).withOneThread,
      Coverage.Requirement("mmap-fixed", "ENOMEM", before: "hole", 5).withOneThread,
      Coverage.Requirement("mmap-fixed", "ENOMEM", before: "gaps", 5).withOneThread,
    ]
  }
}

extension VerifyCall {
  /// A limit with its bytes: what the windows may have and what is `outside` them. Other calls stay as they are.
  func rebased(_ outside: VerifySizes) -> VerifyCall {
    if kind != .setrlimit { return self }
    var call = self
    let other = UInt64(at == LimitCall.data ? outside.data : outside.virtual)
    call.newLength = length == .max ? .max : (other + length) * 4096
    return call
  }
}
