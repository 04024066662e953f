// SPDX-License-Identifier: Apache-2.0
//
// mremap: `newLength` and `target` are its third and fifth argument.

import CKernelProtocol
import Rangeland

struct RemapCall: CallDefinition {
  static var mayMove: UInt64 { 1 }
  static var fixed: UInt64 { 2 }
  static var keepsSource: UInt64 { 4 }

  var fields: [CallField] {
    [
      CallField("new", \.newLength), CallField("flags", \.flags, isHex: false),
      CallField("target", \.target),
    ]
  }

  func isKnown(_ call: VerifyCall) -> Bool { true }

  // MARK: made up

  var weight: UInt64 { 16 }
  var edgeWeight: UInt64 { 2 }
  var needs: [VerifyCall.Kind] { [.mmap, .load, .store] }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    let source = generator.random.chance(90) ? generator.mapped(subject) : nil
    let window: VerifyWindow
    let offset: UInt64
    var length: UInt64
    if let source {
      (window, offset, length) = source
    } else {
      (window, offset) = generator.place(subject)
      length = generator.length(subject, window, offset)
    }
    var call = VerifyCall(.mremap, VerifyAddress(window, offset), length)
    let (otherWindow, other) = generator.place(subject)
    let pages = 1 + generator.random.below(8)
    switch generator.random.below(100) {
    case 0..<22:
      // Grows, in place if it can.
      call.newLength = length + pages * 4096
      call.flags = generator.random.pick([0, 1, 1])
      if generator.random.chance(4) { call.newLength = generator.random.pick([512, 1024]) * 4096 }
    case 22..<36:
      // Shrinks, at times what several mappings hold.
      if generator.random.chance(40) {
        call.length = min(length + pages * 4096, generator.room(window, offset))
      }
      call.newLength = max(1, generator.random.below(call.length))
      call.flags = generator.random.pick([0, 1])
    case 36..<42:
      (call.newLength, call.flags) = (length, generator.random.pick([0, 1]))
    case 42..<72:
      // Moves as it is, at times several.
      if generator.random.chance(40) {
        call.length = min(length + pages * 4096, generator.room(window, offset))
      }
      call.newLength = call.length
      call.flags = Self.mayMove | Self.fixed
    case 72..<80:
      call.newLength = pages * 4096
      call.flags = Self.mayMove | Self.fixed
    case 80..<92:
      call.newLength = length
      call.flags = Self.mayMove | Self.keepsSource | generator.random.pick([0, Self.fixed])
    default:
      (call.length, call.newLength) = (0, pages * 4096)
      call.flags = Self.mayMove | generator.random.pick([0, 0, Self.fixed])
    }
    if call.flags & (Self.fixed | Self.keepsSource) != 0 {
      let isUnnamed = call.flags & Self.fixed == 0 && generator.random.chance(50)
      let room = generator.room(otherWindow, other)
      // Ends with the area at the latest.
      let back = call.newLength > room ? min(other, (call.newLength - room + 4095) & ~4095) : 0
      call.target = isUnnamed ? VerifyAddress(nil, 0) : VerifyAddress(otherWindow, other - back)
    }
    return call
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    let (address, length) = generator.edgeRange()
    var call = VerifyCall(.mremap, address, length)
    (call.target, call.newLength) = generator.edgeRange()
    if generator.random.chance(50) { call.newLength = length }
    call.flags = generator.random.pick([0, 1, 1, 2, 3, 3, 3, 4, 5, 7, 8, 1 << 40])
    return call
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(
      KP_SYS_mremap, call.at, call.length, call.newLength, call.flags, call.target.offset)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    guard let arguments = Arguments(call), call.at < Address.spaceEnd else { return [] }
    var ranges: [KernelProcess.AddressPair] = []
    // Where it grows, nothing is free but windows.
    let (end, overflow) = call.at.addingReportingOverflow(max(arguments.length, 4096))
    if overflow { return nil }
    ranges.append(KernelProcess.AddressPair(start: call.at, end: end))
    if call.flags & Self.fixed != 0 {
      ranges.append(arguments.target)
    } else if arguments.target.start < 1 << 16 && arguments.target.start != 0 {
      // The lowest pages are free in the helper; a process without rights may not have them.
      return nil
    }
    return ranges
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool {
    guard let arguments = Arguments(call) else { return true }
    if call.flags & Self.fixed != 0 { return true }
    if call.flags & Self.keepsSource != 0 { return false }
    if arguments.newLength <= arguments.length { return true }
    // The limit of locked memory is everybody's.
    if subject.flagNames(call.at).contains("lo") { return false }
    // Where it goes if it cannot grow depends on all; whether it can, on what is beyond the area.
    return call.flags & Self.mayMove == 0
      && areas.contains {
        $0.start <= call.at && call.at <= $0.end && arguments.newLength <= $0.end - call.at
      }
  }

  /// Files are placed by their offsets for huge pages. What stays of locked memory whose pages have moved is counted as
  /// locked for ever in Linux (docs/linux.md).
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    let longEnd = call.at.addingReportingOverflow(max(call.length, 1))
    let isPlaced = subject.mappings(
      call.at, longEnd.overflow ? Address.spaceEnd : longEnd.partialValue
    ).allSatisfy { $0.file == 0 || call.newLength < 2 << 20 && $0.offset < 1 << 62 }
    if !isPlaced { return false }
    if call.flags & Self.keepsSource == 0 { return true }
    let end = call.at.addingReportingOverflow(call.length)
    return !subject.mappings(call.at, end.overflow ? Address.spaceEnd : end.partialValue)
      .contains { subject.flagNames($0.start).contains("lo") }
  }

  func near(_ call: VerifyCall) -> [NearPlace] {
    [
      NearPlace(address: call.at, length: max(call.length, 1)),
      NearPlace(address: call.target.offset, length: call.newLength, followsResult: true),
    ]
  }

  /// The arguments of a call that is not refused before the mappings are looked at.
  private struct Arguments {
    var length: UInt64
    var newLength: UInt64
    var target: KernelProcess.AddressPair

    init?(_ call: VerifyCall) {
      length = (call.length &+ 4095) & ~4095
      newLength = (call.newLength &+ 4095) & ~4095
      target = KernelProcess.AddressPair(start: 0, end: 0)
      guard call.flags & ~7 == 0, call.at % 4096 == 0, newLength != 0,
        newLength <= Address.spaceEnd
      else { return nil }
      if call.flags & 6 == 0 { return }
      let start = call.target.offset
      guard start <= Address.spaceEnd - newLength, start % 4096 == 0, call.flags & 1 != 0,
        call.flags & 4 == 0 || length == newLength,
        call.at &+ length <= start || start + newLength <= call.at
      else { return nil }
      target = KernelProcess.AddressPair(start: start, end: start + newLength)
    }
  }

  // MARK: coverage

  func coverageName(_ call: VerifyCall) -> String {
    if call.flags & Self.keepsSource != 0 { return "mremap-keep" }
    let (old, new) = (call.roundedLength ?? 0, (call.newLength &+ 4095) & ~4095)
    if old == 0 { return "mremap-again" }
    if call.flags & Self.fixed != 0 { return old == new ? "mremap-move" : "mremap-fixed" }
    return old == new ? "mremap-same" : old < new ? "mremap-grow" : "mremap-shrink"
  }

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? {
    var made = call
    made.at = UInt64(bitPattern: outcome.result)
    made.length = call.newLength
    return made.pages
  }

  var required: [Coverage.Requirement] {
    var list: [Coverage.Requirement] = []
    for shape in ["whole", "head", "tail", "middle"] {
      list.append(.init("mremap-move", "ok", before: shape, 5))
      list.append(.init("mremap-shrink", "ok", before: shape, 1))
      list.append(.init("mremap-keep", "ok", before: shape, 1))
    }
    for shape in ["several", "gaps"] {
      list.append(.init("mremap-move", "ok", before: shape, 5))
      list.append(.init("mremap-shrink", "ok", before: shape, 1))
      list.append(.init("mremap-grow", "EFAULT", before: shape, 1).withOneThread)
    }
    for joined in Coverage.joints {
      list.append(.init("mremap-move", "ok", joined: joined, 1))
    }
    for joined in ["none", "left", "right"] {
      list.append(.init("mremap-grow", "ok", joined: joined, 3).withOneThread)
    }
    return list + [
      .init("mremap-grow", "ok", before: "whole", 4),
      .init("mremap-grow", "ok", before: "tail", 4),
      .init("mremap-grow", "ok", before: "head", 5).withOneThread,
      .init("mremap-grow", "ENOMEM", 10), .init("mremap-same", "ok", 20),
      .init("mremap-fixed", "ok", 20), .init("mremap-fixed", "EFAULT", 3),
      .init("mremap-move", "EFAULT", before: "hole", 2), .init("mremap-move", "EINVAL", 5),
      .init("mremap-again", "ok", 2), .init("mremap-again", "EINVAL", 5),
    ]
  }
}
