// SPDX-License-Identifier: Apache-2.0
//
// A step on an address space.

import Rangeland
import SystemPackage

extension ReplayStep {
  /// Does what the step says and returns what came of it.
  func perform(on space: AddressSpace) -> ReplayOutcome {
    if action == .fault { return performFault(on: space) }
    do throws(Errno) {
      switch action {
      case .map: try map(.fixedNoReplace(start), space)
      case .mapReplacing: try map(.fixed(start), space)
      case .unmap: try space.unmap(at: start, length: end - start)
      case .protect: try space.protect(at: start, length: end - start, protection)
      case .dontNeed: try space.dontNeed(at: start, length: end - start)
      case .substituteMapping:
        try space.substituteMapping(
          AddressRange(start: start, end: end), protection: protection, sharing: sharing,
          file: file, pageOffset: pageOffset, growsDown: growsDown)
      case .substituteUnmapping:
        try space.substituteUnmapping(AddressRange(start: start, end: end))
      case .fault, .spawn: break
      }
      return .success
    } catch {
      return .failure(error.rawValue)
    }
  }

  private func map(_ address: MapAddress, _ space: AddressSpace) throws(Errno) {
    _ = try space.map(
      length: end - start, at: address, protection: protection, sharing: sharing)
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
