// SPDX-License-Identifier: Apache-2.0
//
// mseal. What is sealed stays: a script with seals ends with a helper of its own, so that few scripts have any.

import CKernelProtocol
import Rangeland

struct SealCall: CallDefinition {
  var fields: [CallField] { [CallField("flags", \.flags, isHex: false)] }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  // MARK: made up

  var weight: UInt64 { 12 }
  var edgeWeight: UInt64 { 1 }
  var isForSomeScripts: Bool { true }
  var needs: [VerifyCall.Kind] { [.madvise, .mmap, .mprotect, .mremap, .munmap, .store] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    if generator.random.chance(60), let found = generator.mapped(subject) {
      // A page or two: what is sealed is in everybody's way from then on.
      return VerifyCall(
        .mseal, VerifyAddress(found.window, found.offset),
        min(found.length, (1 + generator.random.below(2)) * 4096))
    }
    let (window, offset) = generator.place(subject)
    return VerifyCall(
      .mseal, VerifyAddress(window, offset),
      min(generator.length(subject, window, offset), generator.random.pick([4096, 12288])))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(
      .mseal, address, length, flags: generator.random.pick([0, 0, 0, 1, 1 << 40]))
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_mseal, call.at, call.length, call.flags)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { call.reachUpToItsEnd }

  var keepsWhatItDid: Bool { true }

  // A helper that ends means other windows, and threads have their parts of these.
  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  // MARK: coverage

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? { call.pages }

  var required: [Coverage.Requirement] {
    [
      Coverage.Requirement("mseal", "ok", 8).withOneThread,
      Coverage.Requirement("mseal", "ENOMEM", 1).withOneThread,
      Coverage.Requirement("munmap", "EPERM", 3).withOneThread,
      Coverage.Requirement("mprotect", "EPERM", 3).withOneThread,
      Coverage.Requirement("mmap-fixed", "EPERM", 3).withOneThread,
    ]
  }
}
