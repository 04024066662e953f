// SPDX-License-Identifier: Apache-2.0

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import Rangeland

@Suite struct AccessorTests {
  @Test func `values of every width come back, aligned or not`() {
    let world = PagingWorld()
    world.touch(0x1000)
    world.touch(0x2000)
    let accessor = world.accessor
    for offset in UInt64(0)..<40 {
      let at = 0x1ff0 - 8 + offset
      let isStored = accessor.tryStore(at, 0x1122_3344_5566_7788 &+ offset)
      var wide: UInt64 = 0
      let isLoaded = accessor.tryLoad(at, into: &wide)
      #expect(isStored && isLoaded && wide == 0x1122_3344_5566_7788 &+ offset)
      var half: UInt32 = 0
      var small: UInt16 = 0
      var byte: UInt8 = 0
      let areLoaded =
        accessor.tryLoad(at, into: &half) && accessor.tryLoad(at, into: &small)
        && accessor.tryLoad(at, into: &byte)
      #expect(areLoaded)
      #expect(half == UInt32(truncatingIfNeeded: wide))
      #expect(small == UInt16(truncatingIfNeeded: wide))
      #expect(byte == UInt8(truncatingIfNeeded: wide))
    }
    struct Large: BitwiseCopyable, Equatable { var a: UInt64, b: UInt32, c: UInt8 }
    let value = Large(a: 1 << 60, b: 7, c: 9)
    let isStored = accessor.tryStore(0x1ffb, value)
    var back = Large(a: 0, b: 0, c: 0)
    let isLoaded = accessor.tryLoad(0x1ffb, into: &back)
    #expect(isStored && isLoaded && back == value)
  }

  @Test func `an access without its right reports where it faults and changes nothing`() {
    let world = PagingWorld()
    let accessor = world.accessor
    world.touch(0x1000)
    world.touch(0x3000, rights: .read, word: 5)
    var word: UInt64 = 77
    #expect(!accessor.tryLoad(0x2008, into: &word))
    #expect(accessor.pointee.faultAddress == 0x2008 && word == 77)
    for unaligned in [0x2005, 0x2ffc] as [Address] {
      #expect(!accessor.tryLoad(unaligned, into: &word))
      #expect(accessor.pointee.faultAddress == unaligned, "the access's own first byte")
    }
    #expect(!accessor.tryStore(0x3000, UInt64(1)))
    #expect(accessor.pointee.faultAddress == 0x3000)
    #expect(!accessor.tryStore(0x1ffc, UInt64.max), "crosses into an absent page")
    #expect(accessor.pointee.faultAddress == 0x2000)
    let isLoaded = accessor.tryLoad(0x1ff8, into: &word)
    #expect(isLoaded && word == 0, "nothing of the crossing value was written")
    for bad in [Address.spaceEnd, 0x8000_0000_0000, UInt64.max - 7] {
      #expect(!accessor.tryLoad(bad, into: &word))
      #expect(accessor.pointee.faultAddress == bad)
    }
    world.protect(page(0x3000), [])
    #expect(!accessor.tryLoad(0x3000, into: &word), "resident without rights")
    world.grant(.read, 0x3000)
    let isReadAgain = accessor.tryLoad(0x3000, into: &word)
    #expect(isReadAgain && word == 5)
  }

  @Test func `bulk copies stop at the page that faults`() {
    let world = PagingWorld()
    world.touch(0x1000)
    world.touch(0x2000)
    world.touch(0x4000)
    let accessor = world.accessor
    let source = (0..<12_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    #expect(accessor.tryCopyIn(0x1100, from: source, count: source.count) == 0x1f00)
    var back = [UInt8](repeating: 0, count: 12_000)
    #expect(accessor.tryCopyOut(0x1100, to: &back, count: 12_000) == 0x1f00)
    #expect(back[..<0x1f00] == source[..<0x1f00] && back[0x1f00...].allSatisfy { $0 == 0 })
    #expect(accessor.pointee.faultAddress == 0x3000)
  }

  @Test func `compare and swap from many threads loses no increment`() {
    let world = PagingWorld()
    world.touch(0x9000)
    withWatchdog("increments") {
      runThreads(4) { _ in
        for _ in 0..<10_000 {
          var seen: UInt64 = 0
          _ = world.accessor.tryLoad(0x9010, into: &seen)
          var expected = seen
          repeat {
            expected = seen
            let isDone = world.accessor.tryCompareExchange(
              0x9010, expected: expected, desired: expected + 1, seen: &seen)
            precondition(isDone)
          } while seen != expected
          var small: UInt32 = 0
          repeat {
            let old = small
            _ = world.accessor.tryCompareExchange(
              0x9020, expected: old, desired: old + 1, seen: &small)
            if small == old { break }
          } while true
        }
      }
    }
    var sum: UInt64 = 0
    var small: UInt32 = 0
    _ = world.accessor.tryLoad(0x9010, into: &sum)
    _ = world.accessor.tryLoad(0x9020, into: &small)
    #expect(sum == 40_000 && small == 40_000)
  }

  @Test func `an entry is accessed when it was read and dirty only when it was written`() {
    let world = PagingWorld()
    world.touch(0x1000)
    var word: UInt64 = 0
    #expect(!world.tables.lookup(0x1000, world.context).isAccessed)
    _ = world.accessor.tryLoad(0x1000, into: &word)
    let read = world.tables.lookup(0x1000, world.context)
    #expect(read.isAccessed && !read.isDirty && read.cachedBy == world.accessor.pointee.id)
    _ = world.accessor.tryStore(0x1000, word)
    #expect(world.tables.lookup(0x1000, world.context).isDirty)
    withWatchdog("another reader") {
      runThreads(1) { _ in
        var word: UInt64 = 0
        _ = world.accessor.tryLoad(0x1000, into: &word)
      }
    }
    #expect(
      world.tables.lookup(0x1000, world.context).cachedBy == PageTableEntry.cachedBySeveral)
  }

  @Test func `only accessors that may have cached a page are told`() {
    let world = PagingWorld()
    let bystander = Atomic<UInt>(0)
    withWatchdog("a bystander") {
      let turn = Barrier(2)
      runThreads(2) { me in
        if me == 1 {
          bystander.store(UInt(bitPattern: world.accessor), ordering: .releasing)
        }
        turn.wait()
        if me == 0 {
          for i in 0..<100 {
            let at = UInt64(i) << 12
            world.touch(at)
            _ = world.accessor.tryStore(at, at)
          }
          world.protect(AddressRange(start: 0, end: 50 << 12), .read)
          world.zap(AddressRange(start: 0, end: 100 << 12))
        }
        turn.wait()
      }
    }
    let other = AccessorRef(bitPattern: bystander.load(ordering: .acquiring))!
    #expect(other.invalidations.pointee.load(ordering: .relaxed) == 0)
  }

  @Test func `after more zaps than the cache has entries no old translation is used`() {
    let world = PagingWorld()
    let pages = 3 * AccessorState.cacheEntryCount
    let range = AddressRange(start: 0x10_0000, end: 0x10_0000 + UInt64(pages) << 12)
    var word: UInt64 = 0
    for i in 0..<pages {
      world.touch(range.start + UInt64(i) << 12)
      let isLoaded = world.accessor.tryLoad(range.start + UInt64(i) << 12, into: &word)
      #expect(isLoaded)
    }
    world.zap(range)
    for i in 0..<pages {
      #expect(!world.accessor.tryLoad(range.start + UInt64(i) << 12, into: &word))
    }
  }
}
