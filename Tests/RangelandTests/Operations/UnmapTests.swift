// SPDX-License-Identifier: Apache-2.0

import Rangeland
import SystemPackage
import Testing

@Suite struct UnmapTests {
  @Test(arguments: LockPolicy.allCases)
  func `errors as munmap gives them`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    func unmap(_ at: Address, _ length: UInt64) -> Errno? {
      errno { try space.unmap(at: at, length: length) }
    }
    #expect(unmap(base + 1, page) == .invalidArgument)
    #expect(unmap(base, 0) == .invalidArgument)
    #expect(unmap(base, UInt64.max) == .invalidArgument)
    #expect(unmap(Address.spaceEnd, page) == .invalidArgument)
    #expect(unmap(UInt64.max & ~0xfff, page) == .invalidArgument)
    #expect(unmap(base, 16 * page) == nil, "an unmapped range is no error")
    #expect(unmap(0, Address.spaceEnd) == nil)
  }

  @Test(arguments: LockPolicy.allCases)
  func `every cut of a mapping leaves the right pieces`(_ policy: LockPolicy) throws {
    for start in 0..<8 as Range<UInt64> {
      for end in (start + 1)...8 {
        let space = try makeSpace(policy)
        try mapPages(space, 0, 8)
        for i in 0..<8 as Range<UInt64> { try space.store(i, at: base + i * page) }
        try space.unmap(at: base + start * page, length: (end - start) * page - 1)
        var expected: [String] = []
        if start > 0 { expected.append("0..<\(start) rw-p") }
        if end < 8 { expected.append("\(end)..<8 rw-p") }
        #expect(layout(space) == expected)
        for i in 0..<8 as Range<UInt64> {
          let gone = start <= i && i < end
          #expect(
            refusal { _ = try space.load(UInt64.self, at: base + i * page) }
              == (gone ? .notMapped : nil))
          if !gone { #expect(try space.load(UInt64.self, at: base + i * page) == i) }
        }
        #expect(space.usage.residentAnonymousPages == 8 - Int(end - start))
      }
    }
  }

  @Test(arguments: LockPolicy.allCases)
  func `an unmap over several mappings and holes takes them all`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    try mapPages(space, 0, 3)
    try mapPages(space, 5, 2, .read)
    try mapPages(space, 9, 3)
    try space.unmap(at: base + page, length: 9 * page)
    #expect(layout(space) == ["0..<1 rw-p", "10..<12 rw-p"])
  }

  @Test(arguments: LockPolicy.allCases)
  func `frames come back`(_ policy: LockPolicy) throws {
    let memory = try PhysicalMemory(frameLimit: 64)
    let space = try AddressSpace(policy: policy, memory: memory)
    for _ in 0..<10 {
      let address = try space.map(length: 48 * page, protection: [.read, .write])
      for i in 0..<48 as Range<UInt64> { try space.store(i, at: address + i * page) }
      try space.unmap(at: address, length: 48 * page)
    }
    #expect(memory.framesInUse <= 1, "at most the zero page")
  }

  @Test(arguments: LockPolicy.allCases)
  func `a huge mapping over many cells is mapped and unmapped whole and in part`(
    _ policy: LockPolicy
  ) throws {
    let space = try makeSpace(policy)
    let gib = UInt64(1) << 30
    try mapPages(space, 0, (5 * gib) / page)
    try space.unmap(at: base + 2 * gib - page, length: 2 * page)
    #expect(
      layout(space) == ["0..<524287 rw-p", "524289..<1310720 rw-p"])
    try space.unmap(at: base, length: 5 * gib)
    #expect(layout(space).isEmpty)
    #expect(space.usage.virtualPages == 0)
  }
}
