// SPDX-License-Identifier: Apache-2.0

import RangeLocks
import Testing

@Suite struct KeyRangeTests {
  @Test func `The last key belongs to a range without an end`() {
    #expect(KeyRange(5...).last == UInt64.max)
    #expect(KeyRange.all.contains(UInt64.max))
    #expect(KeyRange(first: .max, last: .max).overlaps(.all))
  }

  @Test func `Touching ranges share no key`() {
    #expect(!KeyRange(0..<10).overlaps(KeyRange(10..<20)))
    #expect(KeyRange(0...10).overlaps(KeyRange(10..<20)))
    #expect(KeyRange(0..<10) == KeyRange(0...9))
  }

  @Test func `A range contains itself and its parts only`() {
    let range = KeyRange(10...20)
    #expect(range.contains(range))
    #expect(range.contains(KeyRange(12...20)))
    #expect(!range.contains(KeyRange(9...10)))
    #expect(!range.contains(KeyRange(20...21)))
  }

  @Test func `Only two readers do not conflict`() {
    #expect(!LockMode.read.conflicts(with: .read))
    #expect(LockMode.read.conflicts(with: .write))
    #expect(LockMode.write.conflicts(with: .read))
    #expect(LockMode.write.conflicts(with: .write))
  }

  @Test func `An empty range traps with the rule`() async {
    let result = await #expect(
      processExitsWith: .failure, observing: [\.standardErrorContent]
    ) {
      _ = KeyRange(7..<7)
    }
    let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    #expect(message.contains("a range is not empty"))
  }
}
