// SPDX-License-Identifier: Apache-2.0
//
// The spaces of one script: the first, and those that descend from it by forks.

import CKernelProtocol

/// Speaks for the member that the judge has chosen; a fork adds one, an exit takes one away.
final class SpaceFamily: ForwardingSubject {
  static var mostMembers: Int { Int(KP_MEMBERS) }

  private var members: [(any VerifySubject)?]
  /// Who is meant. The member is there.
  var current = 0

  init(_ first: any VerifySubject) {
    members = [first] + [(any VerifySubject)?](repeating: nil, count: Self.mostMembers - 1)
  }

  /// The members that are there.
  var all: [Int] { members.indices.filter { members[$0] != nil } }

  /// Where the next child goes; the first one's place when there is no more.
  var free: Int { members.firstIndex { $0 == nil } ?? 0 }

  /// Whether a child may have the number.
  func mayBecome(_ number: Int) -> Bool {
    members.indices.contains(number) && members[number] == nil
  }

  func has(_ number: Int) -> Bool { members[number] != nil }

  /// The space of a number; `nil` = there is none.
  func member(_ number: Int) -> (any VerifySubject)? {
    members.indices.contains(number) ? members[number] : nil
  }

  var forwarded: any VerifySubject { members[current]! }

  func perform(_ call: VerifyCall) -> VerifyOutcome {
    switch call.kind {
    case .fork:
      guard let child = forwarded.fork() else { return VerifyOutcome(.noMemory) }
      members[Int(call.value)] = child
      return .success
    case .exit:
      members[current] = nil
      current = 0
      return .success
    case .processRead, .processWrite:
      // The other one is there, or the call is not comparable.
      return transfer(call, with: members[Int(call.value)]!)
    default: return forwarded.perform(call)
    }
  }
}
