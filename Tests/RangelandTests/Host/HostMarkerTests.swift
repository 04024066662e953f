// SPDX-License-Identifier: Apache-2.0
//
// M5 against the kernel: PR_SET_MM_MAP, which needs no privilege, on the test process's own markers.

import CRangeland
import Foundation
import SystemPackage
import Testing

@testable import Rangeland

@Suite struct HostMarkerTests {
  /// Those of this process, from /proc/self/stat and the break.
  private static func ownMarkers() throws -> ProgramMarkers {
    let text = try String(contentsOfFile: "/proc/self/stat", encoding: .utf8)
    // The name, in parentheses, may hold anything.
    let fields = text[text.lastIndex(of: ")")!...].dropFirst(2).split(separator: " ")
    func field(_ number: Int) -> UInt64 { UInt64(fields[number - 3])! }
    var markers = ProgramMarkers()
    (markers.startCode, markers.endCode) = (field(26), field(27))
    markers.startStack = field(28)
    (markers.startData, markers.endData) = (field(45), field(46))
    (markers.heapStart, markers.programBreak) = (field(47), UInt64(rl_kernel_break()))
    (markers.argumentStart, markers.argumentEnd) = (field(48), field(49))
    (markers.environmentStart, markers.environmentEnd) = (field(50), field(51))
    return markers
  }

  private static func setOnHost(_ markers: ProgramMarkers) -> Errno? {
    var words: [UInt64] = [
      markers.startCode, markers.endCode, markers.startData, markers.endData, markers.heapStart,
      markers.programBreak, markers.startStack, markers.argumentStart, markers.argumentEnd,
      markers.environmentStart, markers.environmentEnd, 0, UInt64(UInt32.max) << 32,
    ]
    // The break may have moved since; what is to be refused is out of order anyway.
    if markers.heapStart <= markers.programBreak && markers.heapStart != 0 {
      words[5] = UInt64(rl_kernel_break())
    }
    let result = words.withUnsafeMutableBytes { rl_kernel_set_markers($0.baseAddress!, $0.count) }
    return result < 0 ? Errno(rawValue: Int32(-result)) : nil
  }

  @Test func `markers are refused as the kernel refuses them`() throws {
    let own = try Self.ownMarkers()
    // Not everybody may, and old kernels do not know it.
    guard Self.setOnHost(own) == nil else { return }
    let space = try makeSpace(.ranged)
    var answers: [Errno?: Int] = [:]
    // Not the heap's: this process goes on with its own.
    for marker in ProgramMarker.allCases where marker != .heapStart && marker != .programBreak {
      for address in [
        0, 1, 4095, 0x10_0000, own[marker] &- 1, own[marker] + 1, own.startData, own.endData,
        own.startCode, own.endCode, Address.spaceEnd - 4096, Address.spaceEnd - 1, Address.spaceEnd,
        1 << 47, .max,
      ] as [UInt64] {
        var row = own
        row[marker] = address
        let host = Self.setOnHost(row)
        let ours = errno { try space.setMarkers(row) }
        #expect(host == ours, "\(marker) = \(String(address, radix: 16))")
        answers[host, default: 0] += 1
      }
    }
    for (heapStart, programBreak) in [(own.programBreak + 1, own.programBreak), (0, 0)] {
      var row = own
      (row.heapStart, row.programBreak) = (heapStart, programBreak)
      #expect(Self.setOnHost(row) == errno { try space.setMarkers(row) })
    }
    #expect(Self.setOnHost(own) == nil)
    #expect(answers[nil, default: 0] > 20 && answers[.invalidArgument, default: 0] > 20)
  }
}
