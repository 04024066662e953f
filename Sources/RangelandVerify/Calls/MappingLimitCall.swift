// SPDX-License-Identifier: Apache-2.0
//
// How many mappings there may be (`vm.max_map_count`). The length is how many of them the windows may have.
//
// The system's setting stays: the helper cuts what fills the gaps beside the windows into so many mappings that only as
// many as that are left; the space has a limit of its own.

import CKernelProtocol
import Glibc
import Rangeland
import SystemPackage

struct MappingLimitCall: CallDefinition {
  private static let many = UInt64(KP_MANY_MAPPINGS)

  /// Whether the limit can be reached in some tens of milliseconds.
  static let canBeReached: Bool = {
    let descriptor = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { return false }
    defer { close(descriptor) }
    let text = withUnsafeTemporaryAllocation(byteCount: 64, alignment: 8) { buffer in
      String(
        decoding: buffer[..<max(0, read(descriptor, buffer.baseAddress!, 64))], as: UTF8.self)
    }
    guard let limit = UInt64(text.prefix { $0.isNumber }) else { return false }
    return 2 * many <= limit && limit <= 1 << 17
  }()

  var fields: [CallField] { [] }

  func isKnown(_ call: VerifyCall) -> Bool { call.length <= Self.many && Self.canBeReached }

  // MARK: made up

  var weight: UInt64 { Self.canBeReached ? 4 : 0 }
  var edgeWeight: UInt64 { 0 }
  var needs: [VerifyCall.Kind] {
    [.mmap, .munmap, .mprotect, .madvise, .mremap, .mlock, .munlock, .mbind, .brk, .store]
  }

  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall {
    // Mostly as many as there are, or a few more.
    let count = UInt64(max(0, subject.sizes().mappings))
    return VerifyCall(
      .mappingLimit, VerifyAddress(nil, 0),
      generator.random.chance(20)
        ? Self.many : count + generator.random.pick([0, 0, 0, 1, 1, 2, 3, 4, 6]))
  }

  func edge(_ generator: inout ScriptGenerator) -> VerifyCall {
    VerifyCall(.mappingLimit, VerifyAddress(nil, 0), Self.many)
  }

  // MARK: on both sides

  /// Fewer than there are cannot be had by cutting others.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    call.length >= UInt64(max(0, subject.sizes().mappings))
  }

  func request(_ call: VerifyCall) -> KernelRequest {
    KernelRequest(operation: KP_CROWD, call.length)
  }

  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]? {
    Self.canBeReached ? [] : nil
  }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { false }

  func near(_ call: VerifyCall) -> [NearPlace] { [] }

  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    space.limits.mappingCount = Int(call.newLength)
    return .success
  }

  // MARK: coverage

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { nil }

  var required: [Coverage.Requirement] {
    if !Self.canBeReached { return [] }
    return [
      Coverage.Requirement("max_map_count", "ok", 20),
      Coverage.Requirement("munmap", "ENOMEM", before: "middle", 1),
      Coverage.Requirement("mprotect", "ENOMEM", before: "middle", 1),
      Coverage.Requirement("madvise-attribute", "EAGAIN", before: "middle", 1),
    ].map(\.withOneThread)
  }
}
