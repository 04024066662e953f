// SPDX-License-Identifier: Apache-2.0
//
// `bench space`: what a slow pager does to those who have nothing to do with it.

import CRangeland
import Foundation
import Glibc
import Rangeland
import Synchronization
import SystemPackage

/// Latencies of maps, faults and unmaps of one thread, alone and beside 32 others that use nothing of it: others that
/// fault through a pager that takes 100 us for a page; others that sleep so long; and others that fault in the same way in
/// a space of another memory. What the last ones do to the thread is the machine's matter: they do the same, and share no
/// word with it.
///
/// Each with all threads on all processors, where whoever wakes takes the thread's processor away, and with a processor
/// that the thread has for itself, while the others share the rest: what is left then is what it waits for in the space.
struct PagerBench {
  var rounds: Int
  var milliseconds: Int

  static var threads: Int { 32 }
  static var microseconds: UInt32 { 100 }
  /// Pages of one of the 32 threads.
  private static var stretch: UInt64 { 64 }
  private static let operations = ["map", "fault", "unmap"]

  enum Load: String, CaseIterable {
    case idle
    case sleeping = "32 sleeping"
    case elsewhere = "32 faulting elsewhere"
    case faulting = "32 faulting"

    fileprivate var faults: Bool { self == .faulting || self == .elsewhere }
  }

  /// Where the threads run.
  enum Place: String, CaseIterable {
    case anywhere
    case apart = "processor of its own"

    /// Those that this machine has.
    static var here: [Place] { Processors.allowed.count > 1 ? allCases : [.anywhere] }
  }

  struct Report {
    var cells: [BenchResult] = []
    var facts: [BenchFact] = []
  }

  func run(progress: (String) -> Void) throws -> Report {
    var samples: [Key: [Run]] = [:]
    for round in 0...rounds {
      for policy in LockPolicy.allCases {
        for load in Load.allCases {
          for place in Place.here {
            progress("round \(round)/\(rounds): pager \(policy.rawValue), \(load.rawValue)")
            let run = try once(policy, load, place)
            let key = Key(policy: policy, load: load, place: place)
            if round > 0 { samples[key, default: []].append(run) }
          }
        }
      }
    }
    var report = Report()
    func add(_ name: String, _ threads: Int, _ place: Place, _ figure: (Run) -> Double?) {
      for policy in LockPolicy.allCases {
        for load in Load.allCases {
          let figures = samples[Key(policy: policy, load: load, place: place)]!.compactMap(figure)
          if figures.isEmpty { continue }
          let cell = BenchCell(
            name: name, subject: "\(policy.rawValue), \(load.rawValue)", threads: threads
          ) { _ in [] }
          report.cells.append(BenchResult(cell, figures))
        }
      }
    }
    for place in Place.here {
      for (i, operation) in Self.operations.enumerated() {
        add(Self.name(operation, place), 1, place) { $0.quantiles[i] }
      }
    }
    add("pager: processor time of a page", Self.threads, .anywhere, \.cost)
    for place in Place.here {
      for load in Load.allCases {
        let runs = samples[Key(policy: .ranged, load: load, place: place)]!
        for (what, counts) in [
          ("had to give its processor to others", runs.map(\.preempted)),
          ("slept", runs.compactMap(\.slept)),
        ] where !counts.isEmpty {
          report.facts.append(
            BenchFact(
              name: "pager, \(place.rawValue): ranged, \(load.rawValue): the thread \(what)",
              value: counts.sorted()[counts.count / 2], unit: "times in 10,000 operations"))
        }
      }
    }
    return report
  }

  private struct Key: Hashable {
    var policy: LockPolicy
    var load: Load
    var place: Place
  }

  private static func name(_ operation: String, _ place: Place) -> String {
    "pager: p99 of an unrelated \(operation)" + (place == .apart ? ", \(place.rawValue)" : "")
  }

  // MARK: one run

  private struct Run {
    /// Of maps, faults and unmaps: 99 of 100 take no longer.
    var quantiles: [Double]
    /// Of 10,000 operations: how often the thread had to give its processor to others, and how often it slept.
    var preempted: Double
    var slept: Double?
    /// Processor time of one page of the others, in nanoseconds.
    var cost: Double?
  }

  private func once(_ policy: LockPolicy, _ load: Load, _ place: Place) throws -> Run {
    let memory = try PhysicalMemory(frameLimit: 1 << 16)
    let space = try AddressSpace(policy: policy, memory: memory)
    let other: PhysicalMemory =
      load == .elsewhere ? try PhysicalMemory(frameLimit: 1 << 16) : memory
    let theirs = load == .elsewhere ? try AddressSpace(policy: policy, memory: other) : space
    let length = UInt64(Self.threads) * Self.stretch * Address.pageSize
    let base: Address = 0x1000_0000_0000
    // Mapped in the measured space whatever the others do.
    for (memory, space) in load == .elsewhere
      ? [(memory, space), (other, theirs)] : [(memory, space)]
    {
      let object = try FileObject(pager: SlowPager(), name: "slow", size: length, memory: memory)
      _ = try space.map(object, length: length, at: .fixed(base), protection: .read)
    }
    let others = Others()
    if load != .idle {
      for i in 0..<UInt64(Self.threads) {
        others.start(keptOn: place == .apart ? Processors.others(Int(i)) : nil) { stops in
          if load.faults {
            return Self.readAll(theirs, base + i * Self.stretch * Address.pageSize, stops)
          }
          usleep(Self.microseconds)
          return 1
        }
      }
      usleep(20_000)
    }
    let measured = Self.measure(space, milliseconds, place)
    others.stop()
    return Run(
      quantiles: measured.latencies.map(Self.quantile), preempted: measured.preempted,
      slept: measured.slept, cost: load == .idle ? nil : others.cost)
  }

  /// Reads the pages of a thread; how many.
  private static func readAll(
    _ space: AddressSpace, _ start: Address, _ stops: borrowing Atomic<Bool>
  ) -> Int {
    var count = 0
    for page in 0..<stretch where !stops.load(ordering: .relaxed) {
      _ = try? space.load(UInt8.self, at: start + page * Address.pageSize)
      count += 1
    }
    // Out of the page cache again.
    try? space.advise(.pageOut, at: start, length: stretch * Address.pageSize)
    return count
  }

  private final class Measured: @unchecked Sendable {
    var latencies = [[UInt64]](repeating: [], count: 3)
    var preempted = 0.0
    var slept: Double?
  }

  /// Maps, touches and unmaps far from the others, on a thread that ends with it.
  private static func measure(
    _ space: AddressSpace, _ milliseconds: Int, _ place: Place
  ) -> Measured {
    // Sendable: the thread that waits looks at it afterwards.
    let measured = Measured()
    let group = DispatchGroup()
    group.enter()
    let thread = Thread {
      if place == .apart { Processors.keepThread(on: Processors.allowed.count - 1) }
      measure(space, milliseconds, measured)
      group.leave()
    }
    thread.stackSize = 1 << 20
    thread.start()
    group.wait()
    return measured
  }

  private static func measure(_ space: AddressSpace, _ milliseconds: Int, _ measured: Measured) {
    var latencies = measured.latencies
    for i in 0..<3 { latencies[i].reserveCapacity(milliseconds << 11) }
    let address: Address = 0x2000_0000_0000
    let length = 16 * Address.pageSize
    let before = (Processors.preemptions, Processors.sleeps)
    let start = rl_monotonic_ns()
    var now = start
    repeat {
      do {
        _ = try space.map(length: length, at: .fixed(address), protection: [.read, .write])
        let mapped = rl_monotonic_ns()
        try space.store(UInt8(1), at: address + 5 * Address.pageSize)
        let faulted = rl_monotonic_ns()
        try space.unmap(at: address, length: length)
        let unmapped = rl_monotonic_ns()
        latencies[0].append(mapped - now)
        latencies[1].append(faulted - mapped)
        latencies[2].append(unmapped - faulted)
        now = rl_monotonic_ns()
      } catch {
        fatalError("bench: \(error)")
      }
    } while now &- start < UInt64(milliseconds) * 1_000_000
    let part = 10_000 / Double(3 * latencies[0].count)
    measured.preempted = Double(Processors.preemptions - before.0) * part
    if let sleeps = before.1 {
      measured.slept = Double(Processors.sleeps.unsafelyUnwrapped - sleeps) * part
    }
    measured.latencies = latencies
  }

  private static func quantile(_ latencies: [UInt64]) -> Double {
    let sorted = latencies.sorted()
    return Double(sorted[min(sorted.count - 1, sorted.count * 99 / 100)])
  }

  /// The threads beside it.
  private final class Others: Sendable {
    private let stops = Atomic<Bool>(false)
    private let turns = Atomic<Int>(0)
    private let time = Atomic<UInt64>(0)
    private let group = DispatchGroup()

    /// A thread that runs `body` again and again, which tells how many turns it has made.
    func start(
      keptOn processor: Int?, _ body: @escaping @Sendable (borrowing Atomic<Bool>) -> Int
    ) {
      group.enter()
      let thread = Thread { [self] in
        if let processor { Processors.keepThread(on: processor) }
        var count = 0
        while !stops.load(ordering: .relaxed) { count += body(stops) }
        turns.add(count, ordering: .relaxed)
        var now = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
        time.add(UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec), ordering: .relaxed)
        group.leave()
      }
      thread.stackSize = 1 << 20
      thread.start()
    }

    func stop() {
      stops.store(true, ordering: .relaxed)
      group.wait()
    }

    /// Processor time of a turn, in nanoseconds.
    var cost: Double {
      Double(time.load(ordering: .relaxed)) / Double(max(1, turns.load(ordering: .relaxed)))
    }
  }

  /// The figure, beside nobody, and beside those who do the same elsewhere.
  static func targets(_ results: [BenchResult]) -> [BenchTarget] {
    var targets: [BenchTarget] = []
    for place in Place.allCases {
      for operation in operations {
        func p99(_ load: Load) -> Double? {
          results.first {
            $0.name == name(operation, place) && $0.subject == "ranged, \(load.rawValue)"
          }?.medianNanoseconds
        }
        guard let faulting = p99(.faulting) else { continue }
        for load in [Load.idle, .elsewhere] {
          guard let other = p99(load) else { continue }
          targets.append(
            BenchTarget(
              name:
                "pager, \(operation), \(place.rawValue): 32 faulting against \(load.rawValue), at most",
              required: 2, measured: faulting / other, met: faulting <= 2 * other))
        }
      }
    }
    return targets
  }
}

private final class SlowPager: Pager {
  func fill(page: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno) {
    usleep(PagerBench.microseconds)
    bytes[0] = 1
  }

  func writeBack(page: UInt64, from bytes: UnsafeRawBufferPointer) throws(Errno) {}
}
