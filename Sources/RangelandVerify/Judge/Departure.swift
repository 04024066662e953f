// SPDX-License-Identifier: Apache-2.0
//
// Where Rangeland answers otherwise than the kernel on purpose. The whole list.
//
// A call that falls under a departure is made on the kernel alone, whose answer must be the one that is
// listed; what Rangeland does instead is tried in a space of its own, so that the two histories stay equal.

import Rangeland

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
  let applies: @Sendable (VerifyCall) -> Bool
  /// Whether Rangeland does what is listed, in a space of its own.
  let holds: @Sendable (VerifyCall, AddressSpace) -> Bool

  /// Every departure; each is written down beside the call that it is about.
  public static let all: [Departure] = [
    .pageZero
  ]
}
