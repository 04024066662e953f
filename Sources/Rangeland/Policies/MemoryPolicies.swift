// SPDX-License-Identifier: Apache-2.0
//
// The memory policies of a space by number, as VMA flags carry them, and those of its threads.
//
// Policies are equal exactly when their numbers are, so VMAs merge by their flags alone. A number stays for the
// life of the space: there are few different ones.

import CRangeland
import RangeLocks
import SystemPackage

final class MemoryPolicies: @unchecked Sendable {
  /// Guards all below. Innermost, nothing is taken inside.
  private let latch = Latch()
  private var policies: [MemoryPolicy] = [.default]
  private var numbers: [MemoryPolicy: UInt16] = [.default: 0]
  /// By the kernel's number of the thread.
  private var ofThreads: [Int32: MemoryPolicy] = [:]

  init() {}

  /// For a fork: the same, by the same numbers.
  init(copying other: MemoryPolicies) {
    other.latch.lock(.innermost)
    (policies, numbers, ofThreads) = (other.policies, other.numbers, other.ofThreads)
    other.latch.unlock(.innermost)
  }

  /// The number of a policy, made if need be.
  ///
  /// - Throws: `ENOMEM` when 65,536 different ones are in use.
  func number(of policy: MemoryPolicy) throws(Errno) -> UInt16 {
    latch.lock(.innermost)
    defer { latch.unlock(.innermost) }
    if let known = numbers[policy] { return known }
    guard let number = UInt16(exactly: policies.count) else { throw .noMemory }
    policies.append(policy)
    numbers[policy] = number
    return number
  }

  subscript(number: UInt16) -> MemoryPolicy {
    latch.lock(.innermost)
    defer { latch.unlock(.innermost) }
    return policies[Int(number)]
  }

  /// The calling thread's.
  var ofThread: MemoryPolicy {
    get {
      latch.lock(.innermost)
      defer { latch.unlock(.innermost) }
      return ofThreads[rl_gettid()] ?? .default
    }
    set {
      latch.lock(.innermost)
      ofThreads[rl_gettid()] = newValue == .default ? nil : newValue
      latch.unlock(.innermost)
    }
  }
}
