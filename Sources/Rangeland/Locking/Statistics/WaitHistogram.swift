// SPDX-License-Identifier: Apache-2.0
//
// Wait times in logarithmic buckets of 1/16, without allocation: it is written inside lock operations,
// where a growing histogram of a library cannot be used.

struct WaitHistogram {
  private var counts = InlineArray<1024, UInt32>(repeating: 0)
  private(set) var total: UInt64 = 0
  private(set) var maximum: UInt64 = 0

  /// Counts one value.
  mutating func record(_ value: UInt64) {
    counts[Self.bucket(value)] &+= 1
    total += 1
    maximum = max(maximum, value)
  }

  /// The value below which `fraction` of the values lie, within 1/16; 0 without values.
  func quantile(_ fraction: Double) -> UInt64 {
    guard total > 0 else { return 0 }
    let wanted = max(1, UInt64((fraction * Double(total)).rounded(.up)))
    var seen: UInt64 = 0
    for i in 0..<1024 {
      seen += UInt64(counts[i])
      if seen >= wanted { return min(Self.upperBound(i), maximum) }
    }
    return maximum
  }

  private static func bucket(_ value: UInt64) -> Int {
    if value < 16 { return Int(value) }
    let exponent = 63 - value.leadingZeroBitCount
    let mantissa = Int(value >> UInt64(exponent - 4)) & 15
    return (exponent - 3) * 16 + mantissa
  }

  private static func upperBound(_ bucket: Int) -> UInt64 {
    if bucket < 16 { return UInt64(bucket) }
    let exponent = UInt64(bucket / 16 + 3)
    let mantissa = UInt64(bucket % 16)
    let width = (1 as UInt64) << (exponent - 4)
    return (16 + mantissa) * width + (width - 1)
  }
}
