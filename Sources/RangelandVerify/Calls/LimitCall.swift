// SPDX-License-Identifier: Apache-2.0
//
// setrlimit of RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK and RLIMIT_STACK. The address of the call is the resource, its
// length how many pages the windows, or a stack, may have of it; 2^64 - 1 = what the helper has begun with.

import CKernelProtocol
import Glibc
import Rangeland
import SystemPackage

struct LimitCall: CallDefinition {
  static var addressSpace: UInt64 { 9 }
  static var data: UInt64 { 2 }
  static var lockedMemory: UInt64 { 8 }
  static var stack: UInt64 { 3 }
  private static let all = [addressSpace, data, lockedMemory, stack]

  /// Bytes; `.max` = no limit. The helper inherits this process's: what it may raise a limit to, and the stack's,
  /// which is left as it is.
  static func highest(_ resource: UInt64) -> UInt64 {
    if resource == addressSpace || resource == data { return .max }
    var limit = rlimit()
    if getrlimit(__rlimit_resource_t(UInt32(resource)), &limit) != 0 { return .max }
    return UInt64(resource == stack ? limit.rlim_cur : limit.rlim_max)
  }

  /// The limit of limits.
  private static func hard(_ resource: UInt64) -> UInt64 {
    var limit = rlimit()
    if getrlimit(__rlimit_resource_t(UInt32(resource)), &limit) != 0 { return .max }
    return UInt64(limit.rlim_max)
  }

  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool {
    call.address.window == nil && Self.all.contains(call.address.offset)
  }

  // MARK: made up

  var weight: UInt64 { 6 }
  var edgeWeight: UInt64 { 0 }
  var needs: [VerifyCall.Kind] { [.mmap, .mprotect, .munmap] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let resource = generator.random.pick(
      Self.all + [Self.addressSpace, Self.data, Self.lockedMemory])
    let sizes = subject.sizes()
    if resource == Self.stack {
      // Of a page or of some; 0 is no page.
      return VerifyCall(
        .setrlimit, VerifyAddress(nil, resource),
        generator.random.chance(60) ? .max : generator.random.below(14))
    }
    let used = UInt64(
      max(
        0,
        resource == Self.data
          ? sizes.data : resource == Self.lockedMemory ? sizes.locked : sizes.virtual))
    if resource == Self.lockedMemory && generator.random.chance(15) {
      return VerifyCall(.setrlimit, VerifyAddress(nil, resource), 0)
    }
    // Mostly none; else little more than there is, or a little less.
    let pages =
      generator.random.chance(resource == Self.lockedMemory ? 80 : 90)
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
    request.buffer = [call.newLength, Self.hard(call.at)].flatMap { word in
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
    switch call.at {
    case Self.data: space.limits.data = limit
    case Self.lockedMemory: space.limits.lockedMemory = limit
    case Self.stack: space.limits.stack = limit
    default: space.limits.addressSpace = limit
    }
    return .success
  }

  // MARK: coverage

  func coverageName(_ call: VerifyCall) -> String {
    switch call.at {
    case Self.data: "RLIMIT_DATA"
    case Self.lockedMemory: "RLIMIT_MEMLOCK"
    case Self.stack: "RLIMIT_STACK"
    default: "RLIMIT_AS"
    }
  }

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    [
      Coverage.Requirement("RLIMIT_AS", "ok", 20).withOneThread,
      Coverage.Requirement("RLIMIT_DATA", "ok", 20).withOneThread,
      Coverage.Requirement("RLIMIT_MEMLOCK", "ok", 20).withOneThread,
      Coverage.Requirement("RLIMIT_STACK", "ok", 20).withOneThread,
      Coverage.Requirement("mmap-locked", "EAGAIN", 1).withOneThread,
      Coverage.Requirement("mmap-fixed", "ENOMEM", before: "hole", 2).withOneThread,
      Coverage.Requirement("mmap-fixed", "ENOMEM", before: "gaps", 2).withOneThread,
    ]
  }
}

extension VerifyCall {
  /// A limit with its bytes, or its mappings: what the windows may have and what is `outside` them. Other calls stay as they are.
  func rebased(_ outside: VerifySizes) -> VerifyCall {
    var call = self
    if kind == .mappingLimit {
      call.newLength = length + UInt64(outside.mappings)
      return call
    }
    if kind != .setrlimit { return self }
    let other: UInt64
    switch at {
    case LimitCall.data: other = UInt64(outside.data)
    case LimitCall.addressSpace: other = UInt64(outside.virtual)
    default: other = 0
    }
    let highest = LimitCall.highest(at)
    call.newLength = length == .max ? highest : min((other + length) * 4096, highest)
    return call
  }
}
