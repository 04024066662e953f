// SPDX-License-Identifier: Apache-2.0
//
// Where Rangeland answers otherwise than the kernel on purpose. The whole list.
//
// A call that falls under a departure is made on the kernel alone, whose answer must be the one that is
// listed; what Rangeland does instead is tried in a space of its own, so that the two histories stay equal.

import Rangeland
import SystemPackage

/// A departure on purpose.
public struct Departure: Sendable {
  /// Its name in reports.
  public let name: String
  /// When it applies.
  public let condition: String
  /// The kernel's answer.
  public let kernel: String
  /// What Rangeland does instead.
  public let rangeland: String
  public let reason: String
  /// How many of a million calls may fall under it.
  public let boundPerMillion: Int
  let kernelResult: Int64
  let applies: @Sendable (VerifyCall, UInt64) -> Bool
  /// Whether Rangeland does what is listed, in a space of its own.
  let holds: @Sendable (VerifyCall, UInt64, AddressSpace) -> Bool

  /// Every departure.
  public static let all: [Departure] = [
    Departure(
      name: "page-zero",
      condition: "mmap with MAP_FIXED or MAP_FIXED_NOREPLACE from address 0 on",
      kernel: "EPERM (vm.mmap_min_addr, without CAP_SYS_RAWIO)",
      rangeland: "maps it",
      reason:
        "The rule protects a kernel from null pointers of its own. A space has no kernel in it, and guests "
        + "of emulators do map page 0.",
      boundPerMillion: 10_000, kernelResult: -1,
      applies: { call, address in
        call.isFixed && address == 0 && call.length != 0 && call.length <= Address.spaceEnd
      },
      holds: { call, address, space in
        do throws(Errno) {
          let at: MapAddress = call.isNoReplace ? .fixedNoReplace(address) : .fixed(address)
          let result = try space.map(
            length: call.length, at: at,
            protection: Protection(rawValue: UInt32(call.protection)))
          try space.unmap(at: 0, length: call.length)
          return result == 0
        } catch {
          return false
        }
      })
  ]
}
