// SPDX-License-Identifier: Apache-2.0
//
// mbind: `protection` is the mode, `value` the nodes, `flags` the flags.

import CKernelProtocol
import Rangeland
import SystemPackage

struct BindCall: CallDefinition {
  var fields: [CallField] {
    [CallField("mode", \.protection), CallField("nodes", \.value), CallField("flags", \.flags)]
  }

  /// Nodes that a kernel has no bits for are refused, and how many it has bits for is its own matter.
  func isKnown(_ call: VerifyCall) -> Bool { call.value < 4 }

  // MARK: made up

  var weight: UInt64 { 5 }
  var edgeWeight: UInt64 { 1 }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    let length = generator.length(subject, window, offset)
    let (mode, nodes): (UInt64, UInt64) = generator.random.pick([
      (0, 0), (0, 0), (2, 1), (2, 3), (3, 1), (1, 1), (1, 0), (4, 0), (5, 1), (0x8002, 1),
      (0x8002, 3), (0x4003, 2), (0x8001, 3),
    ])
    // Which pages of shared memory the kernel has mapped ahead of an access only it knows, and strictness asks.
    let asksPages = nodes & 1 == 0 && mode != 0
    return VerifyCall(
      .mbind, VerifyAddress(window, offset), length, protection: mode,
      flags: asksPages
        ? generator.random.pick([0, 2, 3]) : generator.random.pick([0, 0, 1, 2, 3]),
      value: nodes)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(
      .mbind, address, length,
      protection: generator.random.pick([0, 1, 2, 4, 7, 0xc002, 0x2002, 0x2003, 1 << 31]),
      flags: generator.random.pick([0, 0, 4, 8]), value: generator.random.pick([0, 1, 2]))
  }

  // MARK: on both sides

  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    // A file in shared memory has a policy of its own, through private mappings too.
    call.protection & 0xfff == 0 || !subject.mapsFile(call.at, call.length)
  }

  func request(_ call: VerifyCall) -> KernelRequest {
    var request = KernelRequest(
      KP_SYS_mbind, call.at, call.length, call.protection, 0, 65, call.flags)
    request.bufferArgument = 3
    request.buffer = withUnsafeBytes(of: call.value) { [UInt8]($0) }
    return request
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { call.reachUpToItsEnd }

  var keepsWhatItDid: Bool { true }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    outcome { () throws(Errno) in
      try space.bind(
        LinuxArguments(call.at, call.length, call.protection, 0, 65, call.flags)
      ) { call.value }
    }
  }

  // MARK: coverage

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? { call.pages }

  var required: [Coverage.Requirement] {
    Coverage.shapes.map { shape in
      .init("mbind", shape == "hole" ? "EFAULT" : "ok", before: shape, shape == "gaps" ? 1 : 3)
    } + [.init("mbind", "EINVAL", 2), .init("mbind", "EFAULT", before: "gaps", 2)]
      + Coverage.joints.map { .init("mbind", "ok", joined: $0, 1) }
  }
}
