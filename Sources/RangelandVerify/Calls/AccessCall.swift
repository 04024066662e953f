// SPDX-License-Identifier: Apache-2.0
//
// Loads and stores of 1, 2, 4 and 8 bytes, at any alignment.

import CKernelProtocol
import Glibc
import Rangeland
import SystemPackage

struct AccessCall: CallDefinition {
  var isStore: Bool

  private var kind: VerifyCall.Kind { isStore ? .store : .load }

  var fields: [CallField] { isStore ? [CallField("value", \.value)] : [] }

  func isKnown(_ call: VerifyCall) -> Bool { [1, 2, 4, 8].contains(call.length) }

  // MARK: made up

  var weight: UInt64 { isStore ? 15 : 9 }
  var edgeWeight: UInt64 { 1 }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    if generator.random.chance(6), let below = belowStack(&generator, subject) { return below }
    let (window, offset) = generator.place(subject)
    let size: UInt64 = generator.random.pick([8, 8, 8, 4, 2, 1])
    let inside = generator.random.pick(
      [0, 8, 4096 - 8, generator.random.below(512) * 8] as [UInt64])
    // Sometimes across a page border.
    let odd: UInt64 = generator.random.chance(8) ? 4092 - inside : 0
    return VerifyCall(
      kind, VerifyAddress(window, offset + inside + odd), size,
      value: isStore ? generator.random.next() : 0)
  }

  /// Below a stack, often where the gap that it needs to the mapping below ends.
  private func belowStack(
    _ generator: inout ScriptGenerator, _ subject: any VerifySubject
  ) -> VerifyCall? {
    let window = generator.random.pick([.high, .high, .heap, .low] as [VerifyWindow])
    let start = generator.absolute(window, 0)
    let mappings = subject.mappings(start, start + generator.room(window, 0))
    let stacks = mappings.indices.filter { subject.flagNames(mappings[$0].start).contains("gd") }
    guard !stacks.isEmpty else { return nil }
    let index = generator.random.pick(stacks)
    let stack = mappings[index]
    var at = stack.start &- (1 + generator.random.below(6)) * 4096
    if index > 0, generator.random.chance(60) {
      at = mappings[index - 1].end + generator.random.pick([255, 256, 256, 257]) * 4096
    }
    guard at >= start, at < stack.start else { return nil }
    return VerifyCall(
      kind, VerifyAddress(window, at - start), 8, value: isStore ? generator.random.next() : 0)
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    var (address, _) = generator.edgeRange()
    address.offset &= ~7
    // That no address of a program is like.
    if generator.random.chance(20) { address = VerifyAddress(nil, 1 << 62) }
    return VerifyCall(kind, address, 8, value: isStore ? generator.random.next() : 0)
  }

  // MARK: on both sides

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(operation: isStore ? KP_STORE : KP_LOAD, call.at, call.length, call.value)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    let (end, overflow) = call.at.addingReportingOverflow(call.length)
    if overflow || !isKnown(call) { return nil }
    return call.at >= Address.spaceEnd || call.at < 4096
      ? [] : [KernelProcess.AddressPair(start: call.at, end: end)]
  }

  /// What is stored behind the end of a file, in its last page, each side may lose when it likes.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    if !isStore { return true }
    return subject.mappings(call.at, call.at &+ call.length).allSatisfy { mapping in
      if mapping.file == 0 || !mapping.isShared { return true }
      // What of it lies in this mapping: it may cross into another.
      let end = mapping.offset + (min(call.at &+ call.length, mapping.end) - mapping.start)
      let size = subject.fileSize(mapping.file - 1)
      // Into a page that does not exist: a bus error, and nothing is stored.
      return end <= size || end > (size + 4095) & ~4095
    }
  }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    do throws(AccessFault) {
      var value: UInt64 = 0
      switch (isStore, call.length) {
      case (false, 1): value = UInt64(try space.load(UInt8.self, at: call.at))
      case (false, 2): value = UInt64(try space.load(UInt16.self, at: call.at))
      case (false, 4): value = UInt64(try space.load(UInt32.self, at: call.at))
      case (false, _): value = try space.load(UInt64.self, at: call.at)
      case (true, 1): try space.store(UInt8(truncatingIfNeeded: call.value), at: call.at)
      case (true, 2): try space.store(UInt16(truncatingIfNeeded: call.value), at: call.at)
      case (true, 4): try space.store(UInt32(truncatingIfNeeded: call.value), at: call.at)
      default: try space.store(call.value, at: call.at)
      }
      return VerifyOutcome(result: Int64(bitPattern: value))
    } catch {
      let code: Int32 =
        switch error.reason {
        case .notMapped: 1
        case .notPermitted: 2
        case .notCanonical: 128
        case .noPage: 2
        case .outOfMemory: -1
        }
      return VerifyOutcome(
        signal: error.reason == .noPage ? SIGBUS : SIGSEGV, code: code, faultAddress: error.address)
    }
  }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    let name = kind.rawValue
    return [
      .init(name, "ok", 100), .init(name, "SEGV_MAPERR", 20), .init(name, "SEGV_ACCERR", 20),
      .init(name, "SI_KERNEL", 1),
    ]
  }
}
