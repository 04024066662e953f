// SPDX-License-Identifier: Apache-2.0
//
// A step on an address space.

import Rangeland
import SystemPackage

extension ReplayStep {
  /// Does what the step says and returns what came of it.
  ///
  /// - Parameters:
  ///   - calls: `ReplayPlan.calls`.
  ///   - files: what stands for the recorded files.
  func perform(
    on space: AddressSpace, _ calls: UnsafePointer<ReplayCall>, _ files: ReplayFiles
  ) -> ReplayOutcome {
    switch action {
    case .fault: return performFault(on: space)
    case .call: return make(calls[Int(call)], on: space, files)
    default: break
    }
    do throws(Errno) {
      switch action {
      case .map: try map(.fixedNoReplace(start), space)
      case .mapReplacing: try map(.fixed(start), space)
      case .unmap: try space.unmap(at: start, length: end - start)
      case .protect: try space.protect(at: start, length: end - start, protection)
      case .dontNeed: try space.dontNeed(at: start, length: end - start)
      case .residency: _ = try space.residency(at: start, length: end - start)
      case .fork: _ = try space.fork()
      case .insertSpecial:
        _ = try space.insert(
          Self.kernelPages, length: end - start, at: .fixedNoReplace(start),
          protection: protection, sharing: sharing)
      case .setHeap: space.heapStart = start
      case .substituteMapping:
        try space.substituteMapping(
          AddressRange(start: start, end: end), protection: protection, sharing: sharing,
          file: file, pageOffset: pageOffset, growsDown: growsDown)
      case .substituteUnmapping:
        try space.substituteUnmapping(AddressRange(start: start, end: end))
      case .fault, .call, .spawn: break
      }
      return .success
    } catch {
      return .failure(error.rawValue)
    }
  }

  /// What stands for the vdso and its data: pages of zeros.
  private static let kernelPages = SpecialMapping(
    name: "[vdso]", content: .fault { _, _ in true }, maySplit: true)

  private func map(_ address: MapAddress, _ space: AddressSpace) throws(Errno) {
    _ = try space.map(
      length: end - start, at: address, protection: protection, sharing: sharing)
  }

  private func make(
    _ call: ReplayCall, on space: AddressSpace, _ files: ReplayFiles
  ) -> ReplayOutcome {
    var arguments = call.arguments
    if call.file >= 0 {
      arguments.fifth = UInt64(UInt32(bitPattern: files.descriptors[Int(call.file)]))
    }
    let result = space.systemCall(call.call, arguments)
    if (-4095..<0).contains(result) { return .failure(Int32(-result)) }
    let value = UInt64(UInt(bitPattern: result))
    return value == call.result ? .success : .value(value)
  }

  private func performFault(on space: AddressSpace) -> ReplayOutcome {
    do throws(AccessFault) {
      try space.fault(at: start, access)
      return .success
    } catch {
      return .refusal(error.reason)
    }
  }
}
