// SPDX-License-Identifier: Apache-2.0
//
// Numbers that a seed determines, on every machine.
//
// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), SplitMix64.

struct VerifyRandom {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  mutating func below(_ bound: UInt64) -> UInt64 {
    next().multipliedFullWidth(by: max(1, bound)).high
  }

  mutating func chance(_ percent: UInt64) -> Bool { below(100) < percent }

  mutating func pick<T>(_ values: [T]) -> T { values[Int(below(UInt64(values.count)))] }
}
