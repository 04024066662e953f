// SPDX-License-Identifier: Apache-2.0
//
// What the operation tests share.

import Rangeland
import SystemPackage
import Testing

let page = Address.pageSize
/// Far from where the space places mappings itself.
let base: Address = 0x1000_0000_0000

/// A space with few frames, so that tests stay small.
func makeSpace(
  _ policy: LockPolicy, placement: Placement = .linux, vmaCache: Bool = true,
  statistics: Bool = false
) throws -> AddressSpace {
  try AddressSpace(
    policy: policy, placement: placement, memory: PhysicalMemory(frameLimit: 1 << 16),
    vmaCache: vmaCache, statistics: statistics)
}

/// Maps `pages` pages at page `index` above `base`.
@discardableResult
func mapPages(
  _ space: AddressSpace, _ index: UInt64, _ pages: UInt64,
  _ protection: Protection = [.read, .write],
  sharing: Sharing = .private
) throws -> Address {
  try space.map(
    length: pages * page, at: .fixed(base + index * page), protection: protection,
    sharing: sharing)
}

/// The mappings above `base` as `[first page, end page) rights`, the form tests compare.
func layout(_ space: AddressSpace) -> [String] {
  space.mappings().filter { $0.range.start >= base && $0.range.start < base + (1 << 40) }.map {
    let rights =
      ($0.protection.contains(.read) ? "r" : "-") + ($0.protection.contains(.write) ? "w" : "-")
      + ($0.protection.contains(.execute) ? "x" : "-") + ($0.sharing == .shared ? "s" : "p")
    return "\(($0.range.start - base) / page)..<\(($0.range.end - base) / page) \(rights)"
  }
}

/// The errno that `body` throws, `nil` when it succeeds.
func errno(_ body: () throws -> Void) -> Errno? {
  do {
    try body()
    return nil
  } catch let error as Errno {
    return error
  } catch {
    Issue.record("not an Errno: \(error)")
    return nil
  }
}

/// Why an access is refused, `nil` when it succeeds.
func refusal(_ body: () throws -> Void) -> AccessFault.Reason? {
  do {
    try body()
    return nil
  } catch let fault as AccessFault {
    return fault.reason
  } catch {
    Issue.record("not an AccessFault: \(error)")
    return nil
  }
}
