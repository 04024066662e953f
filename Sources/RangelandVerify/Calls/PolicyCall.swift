// SPDX-License-Identifier: Apache-2.0
//
// get_mempolicy and set_mempolicy: policies of addresses, which mbind gives, and of the thread that asks.

import CKernelProtocol
import Rangeland
import SystemPackage

/// get_mempolicy: `flags` are `MPOL_F_*`; what is asked for is the mode, or with `value` 1 the nodes.
struct PolicyCall: CallDefinition {
  static var ofNode: UInt64 { 1 }
  static var ofAddress: UInt64 { 2 }

  var fields: [CallField] {
    [CallField("flags", \.flags, isHex: false), CallField("nodes", \.value, isHex: false)]
  }

  func isKnown(_ call: VerifyCall) -> Bool { call.value <= 1 }

  // MARK: made up

  var weight: UInt64 { 3 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .mbind, .setPolicy] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    let flags = generator.random.pick([2, 2, 2, 2, 3, 0, 0, 1, 4] as [UInt64])
    let ofAddress = flags & Self.ofAddress != 0
    return VerifyCall(
      .getPolicy,
      ofAddress
        ? VerifyAddress(window, offset &+ generator.random.below(4096)) : VerifyAddress(nil, 0),
      0, flags: flags, value: generator.random.pick([0, 0, 1]))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    VerifyCall(
      .getPolicy, generator.edgeRange().0, 0,
      flags: generator.random.pick([2, 2, 2, 0, 1, 3, 4, 6, 8, 1 << 32]),
      value: generator.random.pick([0, 0, 1]))
  }

  // MARK: on both sides

  /// A page that is there is told of whatever its mapping's rights are, unless there are none: which pages of shared
  /// memory and of files the kernel has mapped ahead, only it knows, and what may only be executed, some processors let
  /// be read.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    guard call.flags & 3 == 3, call.at < Address.spaceEnd,
      let mapping = subject.mappings(call.at, call.at + 1).first
    else { return true }
    let (read, write): (UInt32, UInt32) = (1, 2)
    return mapping.protection == 0 || mapping.protection & read != 0
      || mapping.protection == write && !mapping.isShared && mapping.file == 0
  }

  /// Where the answer goes, and at most 64 nodes.
  private func arguments(_ call: VerifyCall, _ answer: UInt64) -> LinuxArguments {
    call.value == 0
      ? LinuxArguments(answer, 0, 0, call.at, call.flags)
      : LinuxArguments(0, answer, 65, call.at, call.flags)
  }

  func request(_ call: VerifyCall) -> KernelRequest {
    let a = arguments(call, 0)
    var request = KernelRequest(
      KP_SYS_get_mempolicy, a.first, a.second, a.third, a.fourth, a.fifth)
    request.bufferArgument = call.value == 0 ? 0 : 1
    request.comparedBytes = call.value == 0 ? 4 : 8
    return request
  }

  /// What is outside the windows has no policy, on both sides, but is not everywhere mapped on both.
  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    if call.at >= Address.spaceEnd || call.flags & Self.ofAddress == 0 { return [] }
    return [KernelProcess.AddressPair(start: call.at, end: call.at + 1)]
  }

  /// Threads that take turns at making a script's calls on the kernel are one there.
  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { call.flags & Self.ofAddress != 0 }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    do throws(Errno) {
      let (mode, nodes) = try space.linuxPolicy(arguments(call, 1))
      var outcome = VerifyOutcome.success
      outcome.output =
        call.value == 0
        ? withUnsafeBytes(of: mode) { [UInt8]($0) } : withUnsafeBytes(of: nodes) { [UInt8]($0) }
      return outcome
    } catch {
      return VerifyOutcome(error)
    }
  }

  // MARK: coverage

  func coverageName(_ call: VerifyCall) -> String {
    call.flags & Self.ofAddress != 0 ? "get_mempolicy" : "get_mempolicy-own"
  }

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    [
      .init("get_mempolicy", "ok", 50), .init("get_mempolicy", "EFAULT", 20),
      Coverage.Requirement("get_mempolicy-own", "ok", 20).withOneThread,
      Coverage.Requirement("get_mempolicy-own", "EINVAL", 5).withOneThread,
    ]
  }
}

/// set_mempolicy: `protection` is the mode, `value` the nodes.
struct SetPolicyCall: CallDefinition {
  var fields: [CallField] { [CallField("mode", \.protection), CallField("nodes", \.value)] }

  /// As of mbind.
  func isKnown(_ call: VerifyCall) -> Bool { call.value < 4 }

  // MARK: made up

  var weight: UInt64 { 2 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .mbind, .getPolicy] }

  private func call(_ mode: UInt64, _ nodes: UInt64) -> VerifyCall {
    VerifyCall(.setPolicy, VerifyAddress(nil, 0), 0, protection: mode, value: nodes)
  }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (mode, nodes): (UInt64, UInt64) = generator.random.pick([
      (0, 0), (2, 1), (2, 3), (3, 1), (3, 3), (1, 1), (1, 3), (1, 0), (4, 0), (5, 1), (6, 1),
      (0x8002, 1), (0x8001, 3), (0x8003, 3), (0x4003, 2), (0x4001, 3), (0x2002, 1),
    ])
    return call(mode, nodes)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    call(
      generator.random.pick([0, 1, 2, 4, 7, 0xc002, 0x2003, 0x8001, 1 << 31, 1 << 32 | 2]),
      generator.random.pick([0, 1, 2]))
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    var request = KernelRequest(KP_SYS_set_mempolicy, call.protection, 0, 65)
    request.bufferArgument = 1
    request.buffer = withUnsafeBytes(of: call.value) { [UInt8]($0) }
    return request
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { [] }

  /// As of get_mempolicy.
  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    outcome { () throws(Errno) in
      try space.setThreadPolicy(call.protection) { call.value }
    }
  }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    [
      Coverage.Requirement("set_mempolicy", "ok", 20).withOneThread,
      Coverage.Requirement("set_mempolicy", "EINVAL", 5).withOneThread,
    ]
  }
}
