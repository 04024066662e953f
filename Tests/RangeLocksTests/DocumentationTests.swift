// SPDX-License-Identifier: Apache-2.0
//
// The code of the documentation, so that it compiles and does what its page says. Scripts/check-doc-code
// compares it with the pages.

import RangeLocks
import RangelandTestSupport
import Testing

extension LockTests {
  @Suite struct DocumentationTests {
    @Test func `What a range lock is`() {
      let lock = RangeLock()
      lock.withWriteLock(over: KeyRange(4096..<8192)) {
        // Nobody else holds a key of 4096..<8192.
      }
      #expect(lock.holdCount == 0)
    }

    @Test func `Ranges`() {
      let page = KeyRange(0x1000..<0x2000)
      let toTheEnd = KeyRange(0x2000...)
      let everything = KeyRange.all
      #expect(page.last == 0x1FFF)
      #expect(toTheEnd.last == .max)
      #expect(everything.contains(toTheEnd) && everything.contains(page))
      #expect(!page.overlaps(toTheEnd))
    }
  }
}
