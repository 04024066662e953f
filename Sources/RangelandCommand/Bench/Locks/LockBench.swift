// SPDX-License-Identifier: Apache-2.0
//
// `bench locks`: the cells. Targets are in LockBench+Targets.swift.

import RangeLocks

/// The cells of `bench locks`.
struct LockBench {
  static let groups = [
    "alone", "disjoint", "readers", "held", "mix", "hand-off", "overtaking", "cancel",
  ]

  /// Which groups are measured.
  var groups: Set<String>
  /// Numbers of threads of the disjoint ranges and the readers; 1 is always measured.
  var threadCounts: [Int]
  /// Ranges held in the largest cell of `held`.
  var mostHeld: Int

  private let idle = IdleThread()

  init(groups: Set<String>, threadCounts: [Int], mostHeld: Int) {
    self.groups = groups
    self.threadCounts = threadCounts
    self.mostHeld = mostHeld
  }

  static let narrow = KeyRange((1 << 40)..<(1 << 40 + 4096))

  func cells() -> [BenchCell] {
    var cells: [BenchCell] = []
    // By name, each: opened from a list of types, the loops would go through witness tables.
    cells += self.cells(PthreadRWLock.self)
    cells += self.cells(PthreadMutex.self)
    cells += self.cells(Ticket.self)
    cells += self.cells(Semaphore.self)
    cells += self.cells(IntervalTreeSubject.self)
    cells += self.cells(RangeLockSubject.self)
    cells += self.cells(DirectorySubject.self)
    cells += self.cells(ThroughputSubject.self)
    if groups.contains("held") { cells += heldCells() }
    for count in threads {
      cells.append(
        BenchCell(name: "spin", subject: "processor", threads: count) { n in
          (0..<n).map { _ in Spin() }
        })
    }
    // Rows of one name stand together.
    let names = cells.map(\.name).reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    return names.flatMap { name in cells.filter { $0.name == name } }
  }

  private func cells<Lock: BenchLock>(_ type: Lock.Type) -> [BenchCell] {
    var cells: [BenchCell] = []
    if groups.contains("alone") { cells += aloneCells(type) }
    if groups.contains("disjoint"), type.knowsRanges { cells += disjointCells(type) }
    if groups.contains("readers"), type.sharesReaders { cells += readerCells(type) }
    if groups.contains("mix") { cells += mixCells(type) }
    if groups.contains("hand-off") {
      cells.append(
        cell("hand-off of one range", type, threads: 2) { _ in
          [RangeRequest(Self.narrow, .write)]
        })
    }
    return cells
  }

  /// A cell with a lock of its own, which the idle thread has used once. The lock is made before every run, outside
  /// of the clock; `requests` are those of each thread.
  private func cell<Lock: BenchLock>(
    _ name: String, _ type: Lock.Type, threads: Int, workNanoseconds: Int = 0,
    _ requests: @escaping (_ thread: Int) -> [RangeRequest]
  ) -> BenchCell {
    let idle = idle
    return BenchCell(name: name, subject: type.name, threads: threads) { count in
      let lock = Lock()
      idle.run { lock.section(Self.narrow, .write) {} }
      return (0..<count).map {
        LockLoop.sections(lock, requests($0), workNanoseconds: workNanoseconds)
      }
    }
  }

  // MARK: groups

  /// Acquire and release, nobody else there but the idle thread.
  private func aloneCells<Lock: BenchLock>(_ type: Lock.Type) -> [BenchCell] {
    [(LockMode.read, "read"), (.write, "write")].flatMap { mode, word in
      [(Self.narrow, "narrow"), (KeyRange.all, "whole")].map { range, width in
        cell("alone, \(word) \(width)", type, threads: 1) { _ in [RangeRequest(range, mode)] }
      }
    }
  }

  /// Threads on ranges of their own.
  private func disjointCells<Lock: BenchLock>(_ type: Lock.Type) -> [BenchCell] {
    let wide: UInt64 = 128 << 20
    let shapes: [(name: String, length: UInt64, distance: UInt64)] = [
      ("disjoint 4 KiB", 4096, 1 << 30), ("disjoint 128 MiB, adjacent", wide, wide),
      ("disjoint 128 MiB, far apart", wide, 1 << 40),
    ]
    return shapes.flatMap { shape in
      threads.map { count in
        cell(shape.name, type, threads: count) { thread in
          let first = 1 << 41 + UInt64(thread) * shape.distance
          return [RangeRequest(KeyRange(first..<(first + shape.length)), .write)]
        }
      }
    }
  }

  /// Readers of one narrow range.
  private func readerCells<Lock: BenchLock>(_ type: Lock.Type) -> [BenchCell] {
    threads.map { count in
      cell("readers of one range", type, threads: count) { _ in [RangeRequest(Self.narrow, .read)] }
    }
  }

  private var threads: [Int] { ([1] + threadCounts.filter { $0 != 1 }).sorted() }

  private func mixCells<Lock: BenchLock>(_ type: Lock.Type) -> [BenchCell] {
    Mix.all.map { mix in
      cell(mix.name, type, threads: mix.threads, workNanoseconds: mix.workNanoseconds) {
        mix.requests(thread: $0)
      }
    }
  }

  /// One more narrow range beside many that are held, at one place and at random ones. The ranges are locked anew
  /// for every run: memory that lay idle meanwhile may be slow to come back.
  private func heldCells() -> [BenchCell] {
    var cells: [BenchCell] = []
    for count in [1, 1000, 100_000, 1_000_000] where count <= mostHeld {
      cells.append(
        heldCell("one more, fixed place", count) { _ in [HeldRanges.fixedPlace] })
      cells.append(
        heldCell("one more, random places", count) { random in
          HeldRanges.randomPlaces(count: count, using: &random)
        })
    }
    return cells
  }

  private func heldCell(
    _ name: String, _ count: Int, _ places: @escaping (inout SplitMix) -> [KeyRange]
  ) -> BenchCell {
    let idle = idle
    return BenchCell(name: name, subject: "\(count) held", threads: 1) { _ in
      let held = HeldRanges(count: count)
      idle.run { held.lock.withWriteLock(over: HeldRanges.fixedPlace) {} }
      var random = SplitMix(seed: 1)
      return [HeldLoop(held, places(&random))]
    }
  }
}
