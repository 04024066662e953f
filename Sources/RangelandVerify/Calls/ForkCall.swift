// SPDX-License-Identifier: Apache-2.0
//
// fork and exit: a script's spaces become several, each of which the calls after that name.
//
// `value` of a fork is the number of the child. A number that is taken, or one of no space, makes no call.

import CKernelProtocol
import Rangeland
import SystemPackage

struct ForkCall: CallDefinition {
  var fields: [CallField] { [CallField("child", \.value, isHex: false)] }

  func isKnown(_ call: VerifyCall) -> Bool { call.value < SpaceFamily.mostMembers }

  // MARK: made up

  var weight: UInt64 { 2 }
  var edgeWeight: UInt64 { 0 }
  var needs: [VerifyCall.Kind] { [.mmap, .store, .madvise, .munmap, .mprotect, .mremap, .exit] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let free = (subject as? SpaceFamily)?.free ?? 0
    return VerifyCall(.fork, VerifyAddress(nil, 0), 0, value: UInt64(free))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    preconditionFailure("a fork has no arguments")
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(operation: KP_FORK, call.value)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { [] }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    (subject as? SpaceFamily)?.mayBecome(Int(call.value)) ?? false
  }

  /// Where no child can be kept it is made and goes.
  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    outcome { () throws(Errno) in _ = try space.fork() }
  }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] { [.init("fork", "ok", 20).withOneThread] }
}

struct ExitCall: CallDefinition {
  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  // MARK: made up

  var weight: UInt64 { 2 }
  var edgeWeight: UInt64 { 0 }
  var needs: [VerifyCall.Kind] { [.mmap, .store, .fork] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    VerifyCall(.exit, VerifyAddress(nil, 0), 0)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    preconditionFailure("an exit has no arguments")
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest { KernelRequest(operation: KP_EXIT) }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { [] }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  /// The first space ends with its script.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    (subject as? SpaceFamily).map { $0.current != 0 } ?? false
  }

  /// A space ends when the judge lets go of it.
  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome { .success }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] { [.init("exit", "ok", 10).withOneThread] }
}
