// SPDX-License-Identifier: Apache-2.0
//
// mmap of a file: `newLength` is the descriptor, `value` the offset.

import CKernelProtocol
import Rangeland
import SystemPackage

struct MapFileCall: CallDefinition {
  var fields: [CallField] {
    [
      CallField("prot", \.protection, isHex: false), CallField("flags", \.flags),
      CallField("file", \.newLength, isHex: false), CallField("offset", \.value),
    ]
  }

  func isKnown(_ call: VerifyCall) -> Bool {
    call.flags & VerifyCall.anonymous == 0 && call.flags & ~MapCall.known < 16
      && call.newLength < VerifyFiles.descriptorCount
  }

  // MARK: made up

  var weight: UInt64 { 12 }
  var edgeWeight: UInt64 { 2 }
  var needs: [VerifyCall.Kind] { [.mmap, .munmap, .load, .store, .mprotect, .madvise, .mremap] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    var length = generator.length(subject, window, offset)
    // Longer ones are placed by their offsets, for huge pages.
    if length > 64 * 4096 { length = 8 * 4096 }
    var flags: UInt64 =
      generator.random.chance(55) ? VerifyCall.shared : VerifyCall.private
    if generator.random.chance(5) { flags = 3 }
    var address = VerifyAddress(window, offset)
    switch generator.random.below(10) {
    case 0..<6: flags |= VerifyCall.fixed
    case 6..<8: flags |= VerifyCall.fixedNoReplace
    case 8: break
    default: address = VerifyAddress(nil, 0)
    }
    if generator.random.chance(3) { flags |= MapCall.growsDown }
    var call = VerifyCall(
      .mapFile, address, length, protection: generator.rights(), flags: flags,
      value: generator.random.below(14) * 4096)
    call.newLength = generator.random.pick([0, 0, 0, 0, 3, 3, 3, 1, 4, 5, 2, 6, 7])
    // What continues a mapping that is there.
    let at = generator.absolute(window, offset)
    if generator.random.chance(40), flags & VerifyCall.fixed != 0, at >= 4096,
      let left = subject.mappings(at - 1, at).first, left.file != 0
    {
      call.value = left.offset + (at - left.start)
      call.newLength = [0, 3, 5][left.file - 1]
      call.protection = UInt64(left.protection)
      call.flags =
        flags & ~VerifyCall.typeMask
        | (left.isShared ? VerifyCall.shared : VerifyCall.private)
    }
    return call
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    let type: UInt64 = generator.random.pick([1, 2, 3, 0, 4])
    let place: UInt64 = generator.random.pick([
      0, VerifyCall.fixed, VerifyCall.fixed, VerifyCall.fixedNoReplace,
    ])
    let border: UInt64 = 1 << 63
    let offset: UInt64 = generator.random.pick([
      0, 1, 4096, border, border - 4096, border - 8192, UInt64.max - 4095, 1 << 44,
    ])
    var call = VerifyCall(
      .mapFile, address, length, protection: generator.rights(), flags: type | place,
      value: offset)
    call.newLength = generator.random.below(VerifyFiles.descriptorCount)
    return call
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(
      KP_SYS_mmap, call.at, call.length, call.protection, call.flags, call.newLength, call.value)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    let isFixed = call.flags & (VerifyCall.fixed | VerifyCall.fixedNoReplace) != 0
    // Low pages are refused to a process without rights: a departure of other mappings.
    if isFixed && call.at < 4096 { return nil }
    if call.flags & VerifyCall.fixedNoReplace != 0 || !isFixed { return [] }
    guard let length = call.roundedLength, length != 0, call.at % 4096 == 0,
      length <= Address.spaceEnd, call.at <= Address.spaceEnd - length
    else { return [] }
    return [KernelProcess.AddressPair(start: call.at, end: call.at + length)]
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    // Files are placed by their offsets for huge pages, those at the end of the largest file by a sum that wraps.
    if call.value == 1 << 63 - 8192
      && call.flags & (VerifyCall.fixed | VerifyCall.fixedNoReplace) == 0
    {
      return false
    }
    return call.length < 2 << 20 || call.flags & VerifyCall.fixed != 0 || call.length > 1 << 40
  }

  func near(_ call: VerifyCall) -> [NearPlace] {
    [NearPlace(address: call.at, length: call.length, followsResult: true)]
  }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? {
    call.flags & VerifyCall.fixed != 0 ? call.pages : nil
  }

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? {
    var made = call
    made.at = UInt64(bitPattern: outcome.result)
    return made.pages
  }

  var required: [Coverage.Requirement] {
    let requirements: [Coverage.Requirement] =
      // That one joins what is above it is made a few times in a long run: too seldom to demand it.
      [.init("mmap_file", "ok", joined: "left", 3)] + [
        .init("mmap_file", "ok", 50), .init("mmap_file", "EINVAL", 3),
        .init("mmap_file", "errno 13", 3), .init("mmap_file", "errno 9", 3),
        .init("mmap_file", "errno 19", 2), .init("mmap_file", "EEXIST", 3),
      ]
    return requirements.map(\.withOneThread)
  }
}
