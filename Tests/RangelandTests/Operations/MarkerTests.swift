// SPDX-License-Identifier: Apache-2.0
//
// M5, M6, M9: markers, the owner's word, and where the vdso stands.

import SystemPackage
import Testing

@testable import Rangeland

/// Markers as a program loader sets them.
let someMarkers: ProgramMarkers = {
  var markers = ProgramMarkers()
  (markers.startCode, markers.endCode) = (0x40_0000, 0x40_1234)
  (markers.startData, markers.endData) = (0x50_0000, 0x50_4000)
  (markers.heapStart, markers.programBreak) = (0x60_0000, 0x60_0000)
  markers.startStack = 0x7ff_f000
  (markers.argumentStart, markers.argumentEnd) = (0x7ff_f100, 0x7ff_f110)
  (markers.environmentStart, markers.environmentEnd) = (0x7ff_f110, 0x7ff_f200)
  return markers
}()

@Suite struct MarkerTests {
  @Test(arguments: LockPolicy.allCases)
  func `M5 markers are set together or alone, in order`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    #expect(space.markers == ProgramMarkers())
    // The others are not set.
    #expect(throws: Errno.invalidArgument) { try space.setMarker(.startCode, to: 0x40_0000) }
    try space.setMarkers(someMarkers)
    #expect(space.markers == someMarkers)
    #expect(space.heapStart == 0x60_0000 && space.programBreak == 0x60_0000)
    #expect(space.setBreak(to: 0x60_0123) == 0x60_0123)
    #expect(space.markers.programBreak == 0x60_0123)
    // Each marker alone: an end below its start, and out of the space.
    for (marker, address) in [
      (.endCode, 0x40_0000), (.startCode, 0x40_1234), (.endData, 0x4f_ffff),
      (.programBreak, 0x5f_ffff), (.argumentEnd, 0x7ff_f0ff), (.environmentEnd, 0x7ff_f10f),
      (.startStack, Address.spaceEnd), (.startData, 4095),
    ] as [(ProgramMarker, Address)] {
      #expect(throws: Errno.invalidArgument, "\(marker)") {
        try space.setMarker(marker, to: address)
      }
    }
    // Stack, arguments and environment lie in a mapping or below one.
    let high: Address = 0x7000_0000
    #expect(throws: Errno.badAddress) { try space.setMarker(.startStack, to: high) }
    try space.setMarker(.endCode, to: high)
    try mapPages(space, 0, 1)
    try space.setMarker(.startStack, to: high)
    #expect(space.markers.startStack == high && space.markers.endCode == high)
    // RLIMIT_DATA counts data and heap.
    space.limits.data = 0x4000 + 0x124
    #expect(throws: Errno.invalidArgument) { try space.setMarker(.programBreak, to: 0x60_0125) }
    try space.setMarker(.programBreak, to: 0x60_0124)
    #expect(space.setBreak(to: 0x60_0125) == 0x60_0124)
    space.checkInvariants()
  }

  @Test func `M5 prctl with raw arguments`() throws {
    let space = try makeSpace(.ranged)
    let at = try mapPages(space, 0, 1)
    func prctl(_ option: UInt64, _ address: UInt64, _ size: UInt64 = 0, last: UInt64 = 0) -> Int {
      space.systemCall(.prctl, LinuxArguments(35, option, address, size, last))
    }
    #expect(space.systemCall(.prctl, LinuxArguments(1)) == -22)
    #expect(prctl(15, at) == 0)
    #expect(try space.load(UInt32.self, at: at) == 104)
    #expect(prctl(15, at + page) == -14)
    let words: [UInt64] = [
      0x40_0000, 0x40_1234, 0x50_0000, 0x50_4000, 0x60_0000, 0x60_0000, 0x7ff_f000, 0x7ff_f100,
      0x7ff_f110, 0x7ff_f110, 0x7ff_f200, 0, UInt64(UInt32.max) << 32,
    ]
    for (i, word) in words.enumerated() { try space.store(word, at: at + UInt64(i) * 8) }
    #expect(prctl(14, at, 96) == -22)
    #expect(prctl(14, at, 104, last: 1) == -22)
    #expect(prctl(14, at + page - 8, 104) == -14)
    #expect(prctl(14, at, 104) == 0)
    #expect(space.markers == someMarkers)
    // An auxiliary vector, and a new program.
    try space.store(UInt64(UInt32.max) << 32 | 8, at: at + 96)
    #expect(prctl(14, at, 104) == -22)
    try space.store(UInt64(3) << 32, at: at + 96)
    #expect(prctl(14, at, 104) == -22)
    #expect(prctl(2, 0x40_0001) == 0)
    #expect(space.markers.endCode == 0x40_0001)
    #expect(prctl(2, 0x40_0001, 1) == -22)
    #expect(prctl(2, 0x40_0000) == -22)
    #expect(prctl(5, base + page) == -14)
    for option in [0, 12, 13, 16, 99] as [UInt64] { #expect(prctl(option, 0x40_0000) == -22) }
  }

  @Test(arguments: LockPolicy.allCases)
  func `M6 the owner's word`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    #expect(space.opaqueWord == 0)
    space.opaqueWord = 42
    #expect(space.opaqueWord == 42)
    // A space's own.
    #expect(try makeSpace(policy).opaqueWord == 0)
    space.opaqueWord = 0
    #expect(space.opaqueWord == 0)
  }

  @Test(arguments: LockPolicy.allCases)
  func `M9 the word of the vdso follows a whole move`(_ policy: LockPolicy) throws {
    let space = try makeSpace(policy)
    #expect(space.vdsoBase == nil)
    let vdso = SpecialMapping(name: "[vdso]", content: .bytes([1]), isVDSO: true)
    let other = SpecialMapping(name: "[vvar]", kind: .device, content: .bytes([2]))
    let first = try space.insert(vdso, length: 2 * page, protection: [.read, .execute])
    #expect(space.vdsoBase == first)
    _ = try space.insert(other, length: page, at: .fixed(base), protection: .read)
    #expect(space.vdsoBase == first)
    let target = base + 8 * page
    #expect(throws: Errno.invalidArgument) {
      _ = try space.remap(at: first, length: page, to: page, .fixed(target))
    }
    #expect(throws: Errno.badAddress) {
      _ = try space.remap(at: first, length: 2 * page, to: 3 * page, .anywhere)
    }
    #expect(space.vdsoBase == first)
    #expect(try space.remap(at: first, length: 2 * page, to: 2 * page, .fixed(target)) == target)
    #expect(space.vdsoBase == target)
    #expect(try space.load(UInt8.self, at: target) == 1)
    _ = try space.remap(at: base, length: page, to: page, .fixed(base + 4 * page))
    #expect(space.vdsoBase == target)
    // As in Linux it stays.
    try space.unmap(at: target, length: 2 * page)
    #expect(space.vdsoBase == target)
  }
}
