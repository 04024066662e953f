// SPDX-License-Identifier: Apache-2.0
//
// mincore.

import CKernelProtocol
import Rangeland
import SystemPackage

struct ResidencyCall: CallDefinition {
  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  // MARK: made up

  var weight: UInt64 { 4 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .load, .store] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    return VerifyCall(
      .mincore, VerifyAddress(window, offset), generator.length(subject, window, offset))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(.mincore, address, length)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    var request = KernelRequest(KP_SYS_mincore, call.at, call.length)
    request.bufferArgument = 2
    request.comparedBytes = call.pages.map { Int(($0.end - $0.start) / 4096) } ?? 0
    return request
  }

  /// In a window, or refused before anything is written: the helper's buffer holds no more.
  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    if let pages = call.pages { return [pages] }
    let isRefused =
      call.at % 4096 != 0 || call.length == 0 || call.at > Address.spaceEnd
      || call.length > Address.spaceEnd - call.at
    return isRefused ? [] : nil
  }

  /// What of a file is in memory is each side's matter.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    !subject.mapsFile(call.at, call.length)
  }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    do throws(Errno) {
      var outcome = VerifyOutcome.success
      outcome.output = try space.residency(at: call.at, length: call.length).map { $0 ? 1 : 0 }
      return outcome
    } catch {
      return VerifyOutcome(error)
    }
  }

  // MARK: coverage

  var required: [Coverage.Requirement] {
    Coverage.shapes.map { .init("mincore", Coverage.needsNoHole($0), before: $0, 3) }
      + [.init("mincore", "EINVAL", 2), .init("mincore", "ENOMEM", 5)]
  }
}
