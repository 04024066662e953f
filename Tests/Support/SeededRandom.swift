// SPDX-License-Identifier: Apache-2.0
//
// Reproducible randomness for tests.
//
// Guarantee: the same seed gives the same numbers on every machine.
// Mechanism: a 64-bit counter with a mixing function; `SEED=n` in the environment replays a run.
// Cost: a few multiplications a number.
// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), SplitMix64.

import CRangeland
import Glibc

/// A small random number generator with a visible seed.
public struct SeededRandom: RandomNumberGenerator, Sendable {
  /// The seed that this generator started from: print it, set `SEED` to it to replay.
  public let seed: UInt64
  private var state: UInt64

  /// A generator that starts from `seed`.
  public init(seed: UInt64) {
    self.seed = seed
    state = seed
  }

  /// A generator seeded from `SEED` in the environment, else from the clock; prints the seed.
  public init(for what: String) {
    let given = getenv("SEED").flatMap { UInt64(String(cString: $0)) }
    self.init(seed: given ?? (rl_monotonic_ns() ^ rl_cycles()))
    print("\(what): SEED=\(seed)")
  }

  /// The next number, uniform over all of `UInt64`.
  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// A number in `0..<bound`. The tiny bias for huge bounds does not matter to tests.
  public mutating func below(_ bound: UInt64) -> UInt64 {
    precondition(bound > 0, "SeededRandom.below: the bound is positive")
    return next().multipliedFullWidth(by: bound).high
  }

  /// True with probability `percent` in a hundred.
  public mutating func chance(_ percent: UInt64) -> Bool { below(100) < percent }

  /// A generator for one thread or one step, derived from this one's seed and `index`.
  public func fork(_ index: Int) -> SeededRandom {
    var mixer = SeededRandom(
      seed: seed ^ (UInt64(bitPattern: Int64(index)) &* 0xD6E8_FEB8_6659_FD93))
    return SeededRandom(seed: mixer.next())
  }
}
