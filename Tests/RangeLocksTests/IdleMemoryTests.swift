// SPDX-License-Identifier: Apache-2.0
//
// What a lock takes while nobody is in it, as the page MemoryAndCost says.

import Glibc
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct IdleMemoryTests {
    /// Pages of the lock's addresses that the system has given memory for.
    private func residentPages(_ lock: RangeLock) -> Int {
      let directory = lock.directory
      let bytes = Directory.bytes(directory.header.pointee.topLevel)
      var pages = [UInt8](repeating: 0, count: (bytes + 4095) / 4096)
      #expect(mincore(directory.raw, bytes, &pages) == 0)
      return pages.count { $0 & 1 != 0 }
    }

    @Test func `An idle lock takes one page, also after use by one thread`() {
      let lock = makeLock()
      #expect(residentPages(lock) == 1)
      lock.withWriteLock(over: KeyRange(0...9)) {}
      lock.withReadLock(over: .all) {}
      #expect(residentPages(lock) == 1)
    }

    @Test func `A size of ranges takes four pages at most, and the addresses are reserved before`()
    {
      let lock = makeLock(.init(usesWholeLockMode: false))
      #expect(Directory.bytes(lock.directory.header.pointee.topLevel) <= 388 << 10)
      for granule in 0..<1000 as Range<UInt64> {
        lock.withWriteLock(over: KeyRange(first: granule << 21, last: granule << 21)) {}
      }
      #expect(residentPages(lock) <= 1 + 4)
    }
  }
}
