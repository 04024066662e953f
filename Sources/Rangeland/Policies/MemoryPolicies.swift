// SPDX-License-Identifier: Apache-2.0
//
// The memory policies of all spaces with one physical memory by number, as VMA flags and shared objects carry them.
//
// Policies are equal exactly when their numbers are, so VMAs merge by their flags alone. A number stays for the
// life of the memory: there are few different ones.
//
// Memory of one piece, reserved with the physical memory and committed as it is touched, all zero at first: policies by
// number, and chains of numbers by hash. So nothing is allocated when a policy is set.

import CRangeland
import RangeLocks
import SystemPackage

final class MemoryPolicies: @unchecked Sendable {
  /// Guards the policies and the chains. Innermost, nothing is taken inside.
  private let latch = Latch()
  /// By number. Number 0 is the default policy, which is all zero.
  private let policies: UnsafeMutablePointer<MemoryPolicy>
  /// The next number with the same hash; 0 = last.
  private let nexts: UnsafeMutablePointer<UInt16>
  /// The first number of each hash; 0 = none.
  private let firsts: UnsafeMutablePointer<UInt16>
  /// Numbers in use.
  private var count = 1

  private static var capacity: Int { 1 << 16 }
  private static var linksOffset: Int { capacity * MemoryLayout<MemoryPolicy>.stride }
  private static var byteCount: Int { linksOffset + 2 * capacity * 2 }

  /// Empty books; `nil` without memory.
  static func make() -> MemoryPolicies? {
    guard let memory = rl_reserve(byteCount) else { return nil }
    return MemoryPolicies(memory)
  }

  private init(_ memory: UnsafeMutableRawPointer) {
    policies = memory.bindMemory(to: MemoryPolicy.self, capacity: Self.capacity)
    let links = (memory + Self.linksOffset)
      .bindMemory(to: UInt16.self, capacity: 2 * Self.capacity)
    nexts = links
    firsts = links + Self.capacity
    // Zero is the default policy, but its representation is the compiler's: written out.
    policies[0] = .default
  }

  deinit { _ = rl_release(policies, Self.byteCount) }

  /// The number of a policy, made if need be.
  ///
  /// - Throws: `ENOMEM` when 65,536 different ones are in use.
  func number(of policy: MemoryPolicy) throws(Errno) -> UInt16 {
    if policy == .default { return 0 }
    latch.lock(.innermost)
    defer { latch.unlock(.innermost) }
    let hash = Self.hash(policy)
    var known = firsts[hash]
    while known != 0 {
      if policies[Int(known)] == policy { return known }
      known = nexts[Int(known)]
    }
    guard let number = UInt16(exactly: count) else { throw .noMemory }
    count += 1
    policies[Int(number)] = policy
    nexts[Int(number)] = firsts[hash]
    firsts[hash] = number
    return number
  }

  private static func hash(_ policy: MemoryPolicy) -> Int {
    let word =
      policy.nodes ^ UInt64(UInt32(bitPattern: policy.mode.rawValue | policy.flags.rawValue)) << 20
    return Int((word &* 0x9e37_79b9_7f4a_7c15) >> 48)
  }

  subscript(number: UInt16) -> MemoryPolicy {
    latch.lock(.innermost)
    defer { latch.unlock(.innermost) }
    return policies[Int(number)]
  }
}
