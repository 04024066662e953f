// SPDX-License-Identifier: Apache-2.0
//
// Recordings of programs that could have run: several threads that map, protect, touch and unmap, with times that
// overlap as a kernel's would.
//
// Mechanism: calls have their effect at a moment that a model of the layout is asked at; what is recorded is an
// interval around it, so that the intervals of different threads overlap and the stamps may be misleading. As in a
// program, nobody works on a mapping before the call that made it has returned, and rights of one page are not
// changed by two threads at once.

@testable import RangelandReplay

enum RandomProgram {
  /// A recording of `threads` threads and up to `operations` calls and faults.
  static func recording(
    threads: Int = 6, operations: Int = 600, using random: inout SeededGenerator
  ) throws -> Recording {
    var model = LayoutModel()
    var events: [RecordedEvent] = (0..<threads).map { beginning($0, at: 0) }
    // A thread's next call begins after its last was over.
    var free = [UInt64](repeating: 1, count: threads)
    // By page: when the call that mapped it returned.
    var returned: [UInt64: UInt64] = [:]
    var protected: [UInt64: UInt64] = [:]
    var now: UInt64 = 10
    for _ in 0..<operations {
      now += 1 + random.next() % 8
      let thread = Int(random.next() % UInt64(threads))
      let first = 0x10_0000 + random.next() % 40 * 4096
      var range = first..<(first + (1 + random.next() % 8) * 4096)
      let choice = random.next() % 6
      if choice > 3 { range = first..<(first + 4096) }
      let pages = stride(from: first, to: range.upperBound, by: 4096)
      let isKnown = model.covers(range)
      var earliest = max(free[thread], pages.map { isKnown ? returned[$0] ?? 0 : 0 }.max()!)
      if choice == 3 { earliest = max(earliest, pages.map { protected[$0] ?? 0 }.max()!) }
      guard earliest < now, isKnown || choice < 2 else { continue }
      let exit = now + random.next() % 30
      var made = RecordedCall(
        kind: .munmap, thread: thread, enter: max(earliest, now - min(now - 1, random.next() % 30)),
        exit: exit, arguments: CallArguments(first, range.upperBound - first), result: 0)
      switch choice {
      case 0, 1:
        guard model.isFree(range) else { continue }
        made.kind = .mmap
        made.arguments = CallArguments(0, range.upperBound - first, 3, 0x22, .max, 0)
        made.result = Int64(first)
        for page in pages { returned[page] = exit + 1 }
      case 2: break
      case 3:
        made.kind = .mprotect
        made.arguments[2] = random.next() % 4
        for page in pages { protected[page] = exit + 1 }
      default:
        let rights = model.area(at: first)!.protection
        if rights.isEmpty { continue }
        events.append(
          fault(first + 8, thread: thread, at: now, code: rights.contains(.write) ? 6 : 4))
        free[thread] = now + 1
        continue
      }
      model.apply(made)
      events.append(.call(made))
      free[thread] = exit + 1
    }
    events.sort { $0.time < $1.time }
    return try Recording(bytes: fileBytes(events), name: "random program")
  }
}
