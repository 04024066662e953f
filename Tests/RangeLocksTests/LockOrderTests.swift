// SPDX-License-Identifier: Apache-2.0
//
// Checked builds: locks with a name are taken in one order.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

/// What a process that trapped has said, and the lines of this file that it names.
private struct Report {
  let text: String
  let lines: [Int]

  init(_ result: ExitTest.Result?) {
    text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    lines = text.split(separator: "LockOrderTests.swift:").dropFirst().compactMap {
      Int($0.prefix { $0.isNumber })
    }
  }
}

/// A lock in an exit test, which captures nothing.
private func lock(_ name: StaticString?) -> RangeLock {
  makeLock(.init(granuleShift: 4, name: name))
}

extension LockTests {
  @Suite(.enabled(if: RangeLock.isChecked)) struct LockOrderTests {
    @Test func `Two locks in two orders are told with all four places`() async {
      let line = Misuse.twoOrdersLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.twoOrders()
      }
      let report = Report(result)
      #expect(report.text.contains("lock order: \"tables\" is asked for"), "\(report.text)")
      #expect(report.lines == [line + 8, line + 7, line + 5, line + 4], "\(report.text)")
    }

    @Test func `So is a circle over three locks, of different threads and tasks`() async {
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        try await Misuse.threeLocks()
      }
      let report = Report(result)
      #expect(report.text.contains("\"a\" is asked for"), "\(report.text)")
      #expect(report.text.contains("\"b\" was asked for"), "\(report.text)")
      #expect(report.text.contains("\"c\" was asked for"), "\(report.text)")
      #expect(report.lines.count == 6)
    }

    @Test func `Ranges of one lock are taken upwards or downwards, not both`() async {
      let line = Misuse.upAndDownLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.upAndDown()
      }
      let report = Report(result)
      #expect(report.text.contains("below a held one is asked for"), "\(report.text)")
      #expect(report.lines == [line + 8, line + 7, line + 5, line + 4], "\(report.text)")
    }

    @Test func `To read once more what one reads is told at once`() async {
      let line = Misuse.readAgainLine
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.readAgain()
      }
      let report = Report(result)
      #expect(report.text.contains("behind a writer that came between"), "\(report.text)")
      #expect(report.lines == [line + 5, line + 4], "\(report.text)")
    }

    @Test func `Two locks of one name are told`() async {
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.oneName()
      }
      let report = Report(result)
      #expect(report.text.contains("another one of that name"), "\(report.text)")
      #expect(report.lines.count == 2)
    }

    @Test func `More names than there is room for are told`() async {
      let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
        Misuse.manyNames()
      }
      #expect(Report(result).text.contains("at most 63 names"))
    }

    @Test func `Tries, deadlines, transferable holds and locks without a name have no order`() {
      withWatchdog("what has no order") {
        let (a, b, none) = (lock("order a"), lock("order b"), lock(nil))
        let first = a.lock(over: KeyRange(0...9), .write)
        b.lock(over: KeyRange(0...9), .write).release()
        none.lock(over: KeyRange(0...9), .write).release()
        first.release()
        let second = b.lock(over: KeyRange(0...9), .write)
        #expect(a.isFree(over: .all, .write))
        if let late = a.lock(over: .all, .write, deadline: rl_monotonic_ns() + 1_000_000_000) {
          late.release()
        } else {
          Issue.record("not granted")
        }
        none.lock(over: KeyRange(0...9), .write).release()
        second.makeTransferable()
        a.lock(over: KeyRange(50...59), .write).release()
        second.release()
        let third = none.lock(over: KeyRange(0...9), .write)
        a.lock(over: KeyRange(50...59), .write).release()
        none.lock(over: KeyRange(50...59), .write).release()
        third.release()
      }
    }
  }
}

/// What a process does that is to be told. Not in the tests themselves: there every call stands on one line, that of a macro.
private enum Misuse {
  // Two locks in two orders are told with all four places.
  static let twoOrdersLine = #line
  static func twoOrders() {
    onThread {
      let (tables, rows) = (lock("tables"), lock("rows"))
      let table = tables.lock(over: KeyRange(0...9), .read)
      rows.lock(over: KeyRange(5...5), .write).release()
      table.release()
      let row = rows.lock(over: KeyRange(70...70), .write)
      tables.lock(over: .all, .read).release()
      row.release()
    }
  }

  // So is a circle over three locks, of different threads and tasks.
  static func threeLocks() async throws {
    let (a, b, c) = (lock("a"), lock("b"), lock("c"))
    runThreads(1) { _ in
      let hold = a.lock(over: .all, .write)
      b.lock(overAll: [.init(.all, .write)]).release()
      hold.release()
    }
    let held = Held(try await b.lock(over: .all, .read))
    let inner: RangeHold = try await c.lock(over: .all, .read)
    inner.release()
    held.release()
    // Another lock of the same name.
    let another = lock("c")
    let outer = another.tryLock(over: .all, .write)!
    let last: RangeHold = try await a.lock(over: .all, .read)
    last.release()
    outer.release()
  }

  // Ranges of one lock are taken upwards or downwards, not both.
  static let upAndDownLine = #line
  static func upAndDown() {
    onThread {
      let lock = lock("keys")
      let low = lock.lock(over: KeyRange(0...9), .write)
      lock.lock(over: KeyRange(20...29), .write).release()
      low.release()
      let high = lock.lock(over: KeyRange(500...599), .write)
      lock.lock(over: KeyRange(300...399), .write).release()
      high.release()
    }
  }

  // To read once more what one reads is told at once.
  static let readAgainLine = #line
  static func readAgain() {
    onThread {
      let lock = lock("keys")
      let hold = lock.lock(over: KeyRange(0...9), .read)
      lock.lock(over: KeyRange(5...5), .read).release()
      hold.release()
    }
  }

  // Two locks of one name are told.
  static func oneName() {
    onThread {
      let (one, two) = (lock("file"), lock("file"))
      let hold = one.lock(over: KeyRange(0...9), .read)
      two.lock(over: KeyRange(5...5), .read).release()
      hold.release()
    }
  }

  // More names than there is room for are told.
  static func manyNames() {
    onThread {
      let names: [StaticString] = [
        "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "b0", "b1", "b2", "b3", "b4", "b5",
        "b6",
        "b7", "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "d0", "d1", "d2", "d3", "d4",
        "d5",
        "d6", "d7", "e0", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "f0", "f1", "f2", "f3",
        "f4",
        "f5", "f6", "f7", "g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "h0", "h1", "h2",
        "h3",
        "h4", "h5", "h6", "h7",
      ]
      for name in names.dropLast() { _ = lock(name) }
      for name in names.dropLast() { _ = lock(name) }
      _ = lock(names.last)
    }
  }
}
