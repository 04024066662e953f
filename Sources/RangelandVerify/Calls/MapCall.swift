// SPDX-License-Identifier: Apache-2.0
//
// mmap of anonymous memory.

import CKernelProtocol
import Rangeland
import SystemPackage

struct MapCall: CallDefinition {
  static var growsDown: UInt64 { 0x100 }
  static var below2GiB: UInt64 { 0x40 }
  static var locked: UInt64 { 0x2000 }
  static var populate: UInt64 { 0x8000 }
  /// MAP_NORESERVE, MAP_STACK, MAP_NONBLOCK, MAP_DENYWRITE, MAP_EXECUTABLE.
  static var others: [UInt64] { [0x4000, 0x2_0000, 0x1_0000, 0x800, 0x1000] }
  static var known: UInt64 {
    VerifyCall.anonymous | VerifyCall.fixed | VerifyCall.fixedNoReplace | growsDown | below2GiB
      | locked | populate
      | others.reduce(0, |)
  }

  var fields: [CallField] {
    [CallField("prot", \.protection, isHex: false), CallField("flags", \.flags)]
  }

  func isKnown(_ call: VerifyCall) -> Bool {
    // Any type and any rights, those that do not exist included.
    call.flags & VerifyCall.anonymous != 0 && call.flags & ~Self.known < 16
  }

  // MARK: made up

  var weight: UInt64 { 48 }
  var edgeWeight: UInt64 { 4 }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let (window, offset) = generator.place(subject)
    let length = generator.length(subject, window, offset)
    let address = VerifyAddress(window, offset)
    let sharing = generator.random.chance(14) ? VerifyCall.shared : VerifyCall.private
    var flags = sharing | VerifyCall.anonymous
    if generator.random.chance(2) { flags |= Self.growsDown }
    if generator.random.chance(5) { flags |= generator.random.pick(Self.others) }
    if generator.random.chance(5) { flags |= Self.below2GiB }
    if generator.random.chance(8) {
      flags |= generator.random.pick([Self.locked, Self.locked, Self.populate])
    }
    if flags & Self.growsDown != 0, generator.random.chance(60),
      let stack = stackAbove(&generator, subject, flags)
    {
      return stack
    }
    let rights = generator.rights()
    switch generator.random.below(38) {
    case 0..<18:
      return VerifyCall(
        .mmap, address, length, protection: rights, flags: flags | VerifyCall.fixed)
    case 18..<25:
      let both = generator.random.chance(50) ? VerifyCall.fixed : 0
      return VerifyCall(
        .mmap, address, length, protection: rights,
        flags: flags | VerifyCall.fixedNoReplace | both)
    case 25..<32:
      let inside = generator.random.chance(30) ? generator.random.below(4096) : 0
      return VerifyCall(
        .mmap, VerifyAddress(window, offset + inside), length, protection: rights, flags: flags)
    default:
      let large: UInt64 = generator.random.pick([512, 1024, 768, 513])
      return VerifyCall(
        .mmap, VerifyAddress(nil, 0), generator.random.chance(20) ? large * 4096 : length,
        protection: rights, flags: flags)
    }
  }

  /// A stack that begins a little more than the gap that it needs above a mapping.
  private func stackAbove(
    _ generator: inout ScriptGenerator, _ subject: any VerifySubject, _ flags: UInt64
  ) -> VerifyCall? {
    guard flags & VerifyCall.typeMask == VerifyCall.private,
      let below = generator.mapped(subject)
    else { return nil }
    let offset = below.offset + below.length + (257 + generator.random.below(12)) * 4096
    let room = generator.room(below.window, 0)
    guard offset + 4 * 4096 <= room else { return nil }
    return VerifyCall(
      .mmap, VerifyAddress(below.window, offset), (1 + generator.random.below(3)) * 4096,
      protection: 3, flags: flags | VerifyCall.fixed)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    let flags =
      (generator.random.chance(20) ? VerifyCall.shared : VerifyCall.private) | VerifyCall.anonymous
      | generator.random.pick([0, VerifyCall.fixed, VerifyCall.fixed, VerifyCall.fixedNoReplace])
    // Types that anonymous memory does not have, and rights that are ignored.
    let type: UInt64 = generator.random.pick([0, 0, 0, 3])
    let isOdd = generator.random.chance(10)
    let extra: UInt64 = generator.random.pick([0, 0, 8, 1 << 40])
    return VerifyCall(
      .mmap, address, length, protection: generator.rights() | extra,
      flags: isOdd ? flags & ~VerifyCall.typeMask | type : flags)
  }

  // MARK: on the kernel

  /// Beyond the limit of mappings the kernel does not come to look at the address that a departure is about.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    guard Departure.pageZero.applies(call), let limit = subject.space.limits.mappingCount else {
      return true
    }
    return subject.space.usage.mappings <= limit
  }

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(
      KP_SYS_mmap, call.at, call.length, call.protection, call.flags, UInt64.max, 0)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    // Nothing is free but the windows.
    if call.isNoReplace || !call.isFixed { return [] }
    guard let length = call.roundedLength, length != 0, call.at % 4096 == 0,
      length <= Address.spaceEnd, call.at <= Address.spaceEnd - length
    else { return [] }
    // A page below vm.mmap_min_addr is refused to a process without CAP_SYS_RAWIO.
    let hasType = [VerifyCall.shared, VerifyCall.private].contains(call.flags & VerifyCall.typeMask)
    // Without a type either refusal is right there.
    if call.at < 4096 && length <= 4096 { return hasType ? [] : nil }
    return [KernelProcess.AddressPair(start: call.at, end: call.at + length)]
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool {
    // How far a stack grows, and where a low mapping goes, others decide.
    if call.flags & (Self.growsDown | Self.below2GiB) != 0 { return false }
    if call.flags & Self.locked != 0, !subject.mayLock((call.length &+ 4095) >> 12, areas) {
      return false
    }
    guard let length = call.roundedLength, length != 0, length < 1 << 40 else { return true }
    let start = call.at & ~4095
    guard call.at < Address.spaceEnd else { return call.isFixed }
    let range = KernelProcess.AddressPair(start: start, end: start + length)
    let isOwn = areas.contains { $0.start <= range.start && range.end <= $0.end }
    // What a fixed mapping replaces lies in the areas; no-replace may look elsewhere, and a hint that is taken
    // leads elsewhere.
    if call.isNoReplace { return isOwn || call.at % 4096 != 0 }
    if call.isFixed { return true }
    return isOwn && subject.mappings(range.start, range.end).isEmpty
  }

  func near(_ call: VerifyCall) -> [NearPlace] {
    [NearPlace(address: call.at, length: call.length, followsResult: true)]
  }

  // MARK: coverage

  func coverageName(_ call: VerifyCall) -> String {
    if call.flags & Self.locked != 0 { return "mmap-locked" }
    if call.flags & Self.populate != 0 { return "mmap-populate" }
    if call.isNoReplace { return "mmap-noreplace" }
    if call.isFixed { return "mmap-fixed" }
    return call.at == 0 ? "mmap" : "mmap-hint"
  }

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? {
    call.isFixed ? call.pages : nil
  }

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? {
    var made = call
    made.at = UInt64(bitPattern: outcome.result)
    return made.pages
  }

  var required: [Coverage.Requirement] {
    var list: [Coverage.Requirement] = []
    for before in Coverage.shapes {
      list.append(.init("mmap-fixed", "ok", before: before, 20))
      if before != "hole" { list.append(.init("mmap-noreplace", "EEXIST", before: before, 2)) }
    }
    for joined in Coverage.joints {
      list.append(.init("mmap-fixed", "ok", joined: joined, joined == "both" ? 3 : 10))
    }
    return list + [
      .init("mmap", "ok", 100).withOneThread, .init("mmap", "ENOMEM", 1).withOneThread,
      .init("mmap-hint", "ok", 100),
      .init("mmap-hint", "EINVAL", 1).withOneThread, .init("mmap-noreplace", "ok", 50),
      .init("mmap-fixed", "EINVAL", 2), .init("mmap-fixed", "ENOMEM", 5),
      .init("mmap-locked", "ok", 20),
      .init("mmap-populate", "ok", 20),
    ]
  }
}

extension Departure {
  static let pageZero = Departure(
    name: "page-zero",
    condition: "mmap with MAP_FIXED or MAP_FIXED_NOREPLACE from address 0 on",
    kernel: "EPERM (vm.mmap_min_addr, without CAP_SYS_RAWIO)",
    rangeland: "maps it",
    reason:
      "The rule protects a kernel from null pointers of its own. A space has no kernel in it, and guests "
      + "of emulators do map page 0.",
    boundPerMillion: 10_000, kernelResult: -1,
    applies: { $0.isFixed && $0.at == 0 && $0.length != 0 && $0.length <= Address.spaceEnd },
    holds: { call, space in
      do throws(Errno) {
        let at: MapAddress = call.isNoReplace ? .fixedNoReplace(0) : .fixed(0)
        let result = try space.map(
          length: call.length, at: at, protection: Protection(rawValue: UInt32(call.protection & 7))
        )
        try space.unmap(at: 0, length: call.length)
        return result == 0
      } catch {
        return false
      }
    })
}
