// SPDX-License-Identifier: Apache-2.0
//
// What the process of the kill tests writes where; the process and the test agree on it here.

public enum WriterRounds {
  public static let threads = 2

  /// The pages that a thread writes to in a round, from 1 on.
  public static func pages(_ thread: Int, _ round: UInt64, of count: UInt64) -> [UInt64] {
    let first = (round &* 7 &+ UInt64(thread) &* 3) % count
    let second = (round &* 11 &+ 5) % count
    return first == second ? [first] : [first, second]
  }
}
