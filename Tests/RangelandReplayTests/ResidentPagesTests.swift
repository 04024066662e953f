// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RangelandReplay

@Suite struct ResidentPagesTests {
  @Test func `pages agree with a set of numbers`() {
    var random = SeededGenerator("resident pages")
    var pages = ResidentPages()
    var model: Set<UInt64> = []
    var peak = 0
    for _ in 0..<2_000 {
      let start = UInt64.random(in: 0..<3_000, using: &random)
      let length = UInt64.random(
        in: 1...(.random(in: 0..<8, using: &random) == 0 ? 1_500 : 40), using: &random)
      let range = start << 12..<(start + length) << 12
      switch Int.random(in: 0..<3, using: &random) {
      case 0:
        pages.insert(range)
        model.formUnion(start..<start + length)
      case 1:
        pages.insert(range.lowerBound + 77)
        model.insert(start)
      default:
        pages.remove(range)
        model.subtract(start..<start + length)
      }
      peak = max(peak, model.count)
      #expect(pages.count == model.count && pages.peak == peak)
      #expect(pages.count(range) == model.count { $0 >= start && $0 < start + length })
    }
  }

  @Test func `a recording's peak is what its events leave at once`() throws {
    let base: UInt64 = 0x7f00_0000_0000
    let recording = try Recording(
      bytes: fileBytes([
        beginning(0, at: 0),
        call(.mmap, CallArguments(0, 0x8000, 3, 0x22, .max, 0), at: 1, result: Int64(base)),
        fault(base, at: 3), fault(base + 0x1000, at: 4), fault(base + 0x1008, at: 5),
        call(.madvise, CallArguments(base, 0x1000, 4), at: 6),
        call(.mmap, CallArguments(0, 0x4000, 3, 0x8022, .max, 0), at: 8, result: 0x7e00_0000_0000),
        call(.munmap, CallArguments(base, 0x8000), at: 10),
        fault(0x7ffe_0000_0000, at: 12),
      ]), name: "test")
    #expect(recording.peakResidentBytes == 5 * 4096)
  }
}
