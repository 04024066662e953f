// SPDX-License-Identifier: Apache-2.0

import RangeLocks
import Testing

/// Ranges of other integers, and of file offsets, as keys.
@Suite struct KeyRangeIntegersTests {
  @Test func `order and overlap are kept over the whole of a small type`() {
    for a in Int8.min...Int8.max {
      let one = KeyRange(of: a...a)
      #expect(one.first == one.last)
      for b in [Int8.min, -1, 0, 1, Int8.max] where a <= b {
        let range = KeyRange(of: a...b)
        for key in Int8.min...Int8.max {
          #expect(range.overlaps(KeyRange(of: key...key)) == (a...b).contains(key))
        }
      }
    }
  }

  @Test func `both ends of the widest types are keys`() {
    #expect(KeyRange(of: Int64.min...Int64.max) == .all)
    #expect(KeyRange(of: UInt64.min...UInt64.max) == .all)
    #expect(KeyRange(of: Int64.min...Int64.min) == KeyRange(first: 0, last: 0))
    #expect(KeyRange(of: Int64.max...) == KeyRange(first: .max, last: .max))
    #expect(KeyRange(of: (7 as UInt32)...).last == UInt64(UInt32.max))
    #expect(KeyRange(of: Int.min..<Int.max).last == UInt64.max - 1)
  }

  @Test func `touching half-open ranges share no key`() {
    #expect(!KeyRange(of: -5..<0).overlaps(KeyRange(of: 0..<5)))
    #expect(KeyRange(of: -5..<1).overlaps(KeyRange(of: 0..<5)))
  }

  @Test func `file ranges are those of fcntl`() throws {
    let toEnd = try #require(KeyRange(fileOffset: 100, length: 0))
    #expect(toEnd.overlaps(try #require(KeyRange(fileOffset: .max, length: 1))))
    #expect(!toEnd.overlaps(try #require(KeyRange(fileOffset: 0, length: 100))))
    #expect(
      KeyRange(fileOffset: 0, length: .max)?.last == KeyRange(of: Int64.max - 1 ..< .max).first)
    #expect(KeyRange(fileOffset: -1, length: 1) == nil)
    #expect(KeyRange(fileOffset: 1, length: -1) == nil)
    #expect(KeyRange(fileOffset: .max, length: 2) == nil)
    #expect(KeyRange(fileOffset: .max, length: 1) != nil)
  }

  @Test func `a lock takes them`() {
    let lock = RangeLock()
    lock.withWriteLock(over: KeyRange(of: -4096..<0)) {
      // Holds cannot be copied, so they are looked at as they come.
      let isOtherFree = lock.tryLock(over: KeyRange(of: 0..<4096), .write) != nil
      #expect(isOtherFree)
      let isSameFree = lock.tryLock(over: KeyRange(of: -1...(-1)), .read) != nil
      #expect(!isSameFree)
    }
  }
}
