// SPDX-License-Identifier: Apache-2.0
//
// msync: `flags` are its flags. What reached the file is compared with it.

import CKernelProtocol
import Rangeland

struct SynchronizeCall: CallDefinition {
  var fields: [CallField] { [CallField("flags", \.flags, isHex: false)] }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  var weight: UInt64 { 2 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .mapFile, .store] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    return VerifyCall(
      .msync, VerifyAddress(window, offset), generator.length(subject, window, offset),
      flags: generator.random.pick([0, 1, 2, 4, 4, 6, 3, 1]))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(
      .msync, address, length, flags: generator.random.pick([0, 1, 4, 5, 8, 7, 2, 1 << 32 | 4]))
  }

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_msync, call.at, call.length, call.flags)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? { call.reachUpToItsEnd }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  var required: [Coverage.Requirement] {
    let requirements: [Coverage.Requirement] =
      // Over several mappings it is made now and then: too seldom to demand it.
      Coverage.shapes.filter { $0 != "several" }.map {
        .init("msync", Coverage.needsNoHole($0), before: $0, 1)
      } + [.init("msync", "EINVAL", 2)]
    return requirements.map(\.withOneThread)
  }
}

/// remap_file_pages: `protection` is its third argument, `value` the page offset.
struct RemapPagesCall: CallDefinition {
  var fields: [CallField] {
    [CallField("prot", \.protection), CallField("offset", \.value)]
  }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  var weight: UInt64 { 2 }
  var edgeWeight: UInt64 { 1 }
  var needs: [VerifyCall.Kind] { [.mmap, .mapFile, .load, .store] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let found = generator.mapped(subject)
    let (window, offset) = found.map { ($0.window, $0.offset) } ?? generator.place(subject)
    let length =
      found?.length ?? generator.length(subject, window, offset)
    return VerifyCall(
      .remapFilePages, VerifyAddress(window, offset), length,
      protection: generator.random.chance(3) ? 1 : 0, value: generator.random.below(12))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    return VerifyCall(
      .remapFilePages, address, length,
      value: generator.random.pick([0, 1, 1 << 51, .max, 1 << 52]))
  }

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(KP_SYS_remap_file_pages, call.at, call.length, call.protection, call.value, 0)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    let start = call.at & ~4095
    let (end, overflow) = start.addingReportingOverflow(call.length & ~4095)
    if overflow || end <= start || start >= Address.spaceEnd { return [] }
    // What fills the gaps outside is shared memory: the kernel would map its pages anew.
    return [KernelProcess.AddressPair(start: start, end: end)]
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  var required: [Coverage.Requirement] {
    let requirements: [Coverage.Requirement] = [
      .init("remap_file_pages", "ok", 5), .init("remap_file_pages", "EINVAL", 5),
    ]
    return requirements.map(\.withOneThread)
  }
}
