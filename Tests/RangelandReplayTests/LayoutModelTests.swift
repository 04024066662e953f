// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RangelandReplay

@Suite struct LayoutModelTests {
  private static let page: UInt64 = 4096

  /// Page number to attributes: what the model must agree with.
  private struct Pages {
    var pages: [UInt64: RecordedArea] = [:]

    mutating func apply(_ effect: LayoutEffect) {
      switch effect {
      case .map(let area):
        for page in Self.numbers(area.start..<area.end) { pages[page] = Self.one(area, page) }
      case .unmap(let range): for page in Self.numbers(range) { pages[page] = nil }
      case .protect(let range, let protection):
        for page in Self.numbers(range) { pages[page]?.protection = protection }
      default: break
      }
    }

    static func numbers(_ range: Range<UInt64>) -> Range<UInt64> {
      (range.lowerBound / page)..<(range.upperBound / page)
    }

    static func one(_ area: RecordedArea, _ number: UInt64) -> RecordedArea {
      area.clipped(to: (number * page)..<((number + 1) * page))
    }
  }

  @Test func `random effects agree with a map of pages`() {
    var random = SeededGenerator("layout model")
    for _ in 0..<20 {
      var model = LayoutModel()
      var pages = Pages()
      for _ in 0..<200 {
        let start = Self.page * UInt64.random(in: 1..<60, using: &random)
        let range = start..<(start + Self.page * UInt64.random(in: 1..<12, using: &random))
        let protection = Protection(argument: random.next())
        let effect: LayoutEffect
        switch Int.random(in: 0..<4, using: &random) {
        case 0: effect = .unmap(range)
        case 1: effect = .protect(range, protection)
        default:
          effect = .map(
            RecordedArea(
              start: range.lowerBound, end: range.upperBound, protection: protection,
              backing: Bool.random(using: &random)
                ? .anonymous : .file(0, offset: range.lowerBound)))
        }
        model.apply(effect)
        pages.apply(effect)
        check(model, pages)
      }
    }
  }

  private func check(_ model: LayoutModel, _ pages: Pages) {
    var found: [UInt64: RecordedArea] = [:]
    var last: RecordedArea?
    for area in model.areas {
      #expect(area.start < area.end)
      if let last {
        #expect(last.end <= area.start)
        #expect(!last.isContinued(by: area), "not merged at \(area.start)")
      }
      last = area
      for page in Pages.numbers(area.start..<area.end) { found[page] = Pages.one(area, page) }
    }
    #expect(found == pages.pages)
  }

  @Test func `mremap moves attributes, shrinks, grows and may keep its source`() {
    func model() -> LayoutModel {
      LayoutModel([
        RecordedArea(
          start: 0x10000, end: 0x14000, protection: .read, backing: .file(0, offset: 0))
      ])
    }
    var moved = model()
    moved.apply(.move(from: 0x11000..<0x12000, to: 0x20000..<0x23000, keepsSource: false))
    #expect(moved.areas.map(\.start) == [0x10000, 0x12000, 0x20000])
    #expect(moved.areas[2].backing == .file(0, offset: 0x1000))
    #expect(moved.areas[2].end == 0x23000)
    var kept = model()
    kept.apply(.move(from: 0x11000..<0x12000, to: 0x20000..<0x21000, keepsSource: true))
    #expect(kept.areas.map(\.start) == [0x10000, 0x20000])
    var shrunk = model()
    shrunk.apply(.move(from: 0x10000..<0x14000, to: 0x10000..<0x11000, keepsSource: false))
    #expect(shrunk.areas.map(\.end) == [0x11000])
    var grown = model()
    grown.apply(.move(from: 0x10000..<0x14000, to: 0x10000..<0x18000, keepsSource: false))
    #expect(grown.areas.map(\.end) == [0x18000])
  }

  @Test func `the break grows and shrinks by whole pages`() {
    var programBreak: UInt64?
    func brk(_ argument: UInt64, _ result: Int64) -> LayoutEffect {
      RecordedCall(
        kind: .brk, thread: 0, enter: 0, exit: 0, arguments: CallArguments(argument),
        result: result
      ).effect(programBreak: &programBreak)
    }
    #expect(brk(0, 0x10123) == .none)
    #expect(
      brk(0x12345, 0x12345)
        == .map(
          RecordedArea(start: 0x11000, end: 0x13000, protection: [.read, .write], backing: .heap)))
    #expect(brk(0x12400, 0x12400) == .none)
    #expect(brk(0x11000, 0x11000) == .unmap(0x11000..<0x13000))
    #expect(brk(0, 0x11000) == .none)
  }

  @Test func `effects widen to whole pages and never wrap`() {
    var programBreak: UInt64?
    func effect(_ kind: CallKind, _ arguments: CallArguments, _ result: Int64) -> LayoutEffect {
      RecordedCall(
        kind: kind, thread: 0, enter: 0, exit: 0, arguments: arguments, result: result
      ).effect(programBreak: &programBreak)
    }
    #expect(effect(.munmap, CallArguments(0x10000, 1), 0) == .unmap(0x10000..<0x11000))
    #expect(effect(.munmap, CallArguments(0x10000, 1), -22) == .none)
    #expect(effect(.madvise, CallArguments(.max - 4095, .max, 4), 0) == .none)
    #expect(effect(.mprotect, CallArguments(0x10000, 0, 1), 0) == .none)
    #expect(
      effect(.mmap, CallArguments(0, 5000, 3, 0x22, .max, 0), 0x10000)
        == .map(RecordedArea(start: 0x10000, end: 0x12000, protection: [.read, .write])))
  }

  @Test func `the stack grows for a fault below it and nothing else does`() {
    var model = LayoutModel([
      RecordedArea(start: 0x10000, end: 0x11000, protection: .read),
      RecordedArea(
        start: 0x7000_0000, end: 0x7001_0000, protection: [.read, .write], backing: .stack),
    ])
    func fault(_ address: UInt64) -> RecordedFault {
      RecordedFault(thread: 0, time: 0, address: address, errorCode: 6, fromKernel: false)
    }
    let grew = model.grow(for: fault(0x6fff_f123))
    #expect(grew)
    #expect(model.areas[1].start == 0x6fff_f000)
    for address: UInt64 in [0xf000, 0x6fff_f123, 0x5000_0000] {
      let grewAgain = model.grow(for: fault(address))
      #expect(!grewAgain)
    }
  }

  @Test func `an inferred layout leaves out what a call mapped first`() {
    let map = RecordedCall(
      kind: .mmap, thread: 0, enter: 0, exit: 1,
      arguments: CallArguments(0, 8192, 3, 0x22, .max, 0),
      result: 0x100_0000)
    func fault(_ address: UInt64, _ time: UInt64) -> RecordedFault {
      RecordedFault(thread: 0, time: time, address: address, errorCode: 4, fromKernel: false)
    }
    let areas = InitialLayout.inferred(
      calls: [map],
      faults: [
        fault(0x100_0000, 2), fault(0x0ff_f000, 3), fault(0x100_2000, 4), fault(0x8, 5),
      ])
    // The two neighbours stay apart, and a null pointer is no mapping.
    #expect(areas.map(\.start) == [0x0ff_f000, 0x100_2000])
  }

  @Test func `a set of ranges agrees with a set of numbers`() {
    var random = SeededGenerator("range set")
    var ranges = RangeSet()
    var numbers: Set<UInt64> = []
    for _ in 0..<300 {
      let start = UInt64.random(in: 0..<200, using: &random)
      let range = start..<(start + UInt64.random(in: 0..<8, using: &random))
      let asked = (start / 2)..<(start / 2 + 9)
      #expect(ranges.overlaps(asked) == asked.contains { numbers.contains($0) })
      #expect(
        ranges.missing(in: asked).flatMap { Array($0) } == asked.filter { !numbers.contains($0) })
      ranges.insert(range)
      numbers.formUnion(range)
      for number in UInt64(0)..<210 { #expect(ranges.contains(number) == numbers.contains(number)) }
    }
  }
}
