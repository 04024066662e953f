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
/// fault through a pager that takes 100 us for a page; others that sleep so long; and others that sleep so long and
/// compute as long as such a fault takes the processor. What the last ones do to the thread is the processors' matter: as
/// many threads become runnable as often, for as long.
struct PagerBench {
  var rounds: Int
  var milliseconds: Int

  static var threads: Int { 32 }
  static var microseconds: UInt32 { 100 }
  /// Pages of one of the 32 threads.
  private static var stretch: UInt64 { 64 }

  enum Load: String, CaseIterable {
    case idle
    case sleeping = "32 sleeping"
    case faulting = "32 faulting"
    case computing = "32 sleeping, computing"
  }

  func run(progress: (String) -> Void) throws -> [BenchResult] {
    var samples: [Key: [Double]] = [:]
    // Processor time of a page, by policy: measured before others compute as long.
    var costs: [LockPolicy: [Double]] = [:]
    for round in 0...rounds {
      for policy in LockPolicy.allCases {
        for load in Load.allCases {
          progress("round \(round)/\(rounds): pager \(policy.rawValue), \(load.rawValue)")
          let run = try once(policy, load, computing: costs[policy]?.last ?? 0)
          if load == .faulting { costs[policy, default: []].append(run.cost) }
          if round == 0 { continue }
          for (i, all) in run.latencies.enumerated() {
            samples[Key(policy: policy, load: load, operation: i), default: []].append(
              Self.quantile(all))
          }
        }
      }
    }
    var results: [BenchResult] = []
    for (i, name) in ["map", "fault", "unmap"].enumerated() {
      for policy in LockPolicy.allCases {
        for load in Load.allCases {
          let cell = BenchCell(
            name: "pager: p99 of an unrelated \(name)",
            subject: "\(policy.rawValue), \(load.rawValue)", threads: 1
          ) { _ in [] }
          results.append(
            BenchResult(cell, samples[Key(policy: policy, load: load, operation: i)]!))
        }
      }
    }
    for policy in LockPolicy.allCases {
      let cell = BenchCell(
        name: "pager: processor time of a page", subject: policy.rawValue, threads: Self.threads
      ) { _ in [] }
      results.append(BenchResult(cell, Array(costs[policy]!.dropFirst())))
    }
    return results
  }

  private struct Key: Hashable {
    var policy: LockPolicy
    var load: Load
    var operation: Int
  }

  private static func quantile(_ latencies: [UInt64]) -> Double {
    let sorted = latencies.sorted()
    return Double(sorted[min(sorted.count - 1, sorted.count * 99 / 100)])
  }

  private struct Run {
    /// Of maps, faults and unmaps.
    var latencies: [[UInt64]]
    /// Processor time of one turn of the others, in nanoseconds.
    var cost: Double
  }

  private func once(
    _ policy: LockPolicy, _ load: Load, computing nanoseconds: Double
  ) throws -> Run {
    let memory = try PhysicalMemory(frameLimit: 1 << 16)
    let space = try AddressSpace(policy: policy, memory: memory)
    let pages = UInt64(Self.threads) * Self.stretch
    let object = try FileObject(
      pager: SlowPager(), name: "slow", size: pages * Address.pageSize, memory: memory)
    let base = try space.map(
      object, length: pages * Address.pageSize, at: .fixed(0x1000_0000_0000), protection: .read)
    let stops = Flag()
    let group = DispatchGroup()
    let turns = Atomic<Int>(0)
    let time = Atomic<UInt64>(0)
    if load != .idle {
      for i in 0..<UInt64(Self.threads) {
        group.enter()
        let thread = Thread {
          let own = base + i * Self.stretch * Address.pageSize
          var count = 0
          while !stops.value.load(ordering: .relaxed) {
            switch load {
            case .faulting: count += Self.readAll(space, own, stops)
            case .computing:
              count += 1
              let start = Self.threadTime
              usleep(Self.microseconds)
              while Double(Self.threadTime - start) < nanoseconds {}
            case .idle, .sleeping:
              count += 1
              usleep(Self.microseconds)
            }
          }
          turns.add(count, ordering: .relaxed)
          time.add(Self.threadTime, ordering: .relaxed)
          group.leave()
        }
        thread.stackSize = 1 << 20
        thread.start()
      }
      usleep(20_000)
    }
    let latencies = Self.measure(space, milliseconds)
    stops.value.store(true, ordering: .relaxed)
    group.wait()
    let count = turns.load(ordering: .relaxed)
    return Run(
      latencies: latencies,
      cost: count == 0 ? 0 : Double(time.load(ordering: .relaxed)) / Double(count))
  }

  /// Processor time of the calling thread, in nanoseconds.
  private static var threadTime: UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }

  private final class Flag: Sendable {
    let value = Atomic<Bool>(false)
  }

  /// Reads the pages of a thread; how many.
  private static func readAll(_ space: AddressSpace, _ start: Address, _ stops: Flag) -> Int {
    var count = 0
    for page in 0..<stretch where !stops.value.load(ordering: .relaxed) {
      _ = try? space.load(UInt8.self, at: start + page * Address.pageSize)
      count += 1
    }
    // Out of the page cache again.
    try? space.advise(.pageOut, at: start, length: stretch * Address.pageSize)
    return count
  }

  /// Maps, touches and unmaps far from the others.
  private static func measure(_ space: AddressSpace, _ milliseconds: Int) -> [[UInt64]] {
    var latencies: [[UInt64]] = [[], [], []]
    for i in 0..<3 { latencies[i].reserveCapacity(1 << 16) }
    let address: Address = 0x2000_0000_0000
    let start = rl_monotonic_ns()
    var now = start
    repeat {
      do {
        _ = try space.map(
          length: 16 * Address.pageSize, at: .fixed(address), protection: [.read, .write])
        let mapped = rl_monotonic_ns()
        try space.store(UInt8(1), at: address + 5 * Address.pageSize)
        let faulted = rl_monotonic_ns()
        try space.unmap(at: address, length: 16 * Address.pageSize)
        let unmapped = rl_monotonic_ns()
        latencies[0].append(mapped - now)
        latencies[1].append(faulted - mapped)
        latencies[2].append(unmapped - faulted)
        now = rl_monotonic_ns()
      } catch {
        fatalError("bench: \(error)")
      }
    } while now &- start < UInt64(milliseconds) * 1_000_000
    return latencies
  }

  /// The figure: beside nobody, beside those who sleep as long, and beside those who take the processor as long.
  static func targets(_ results: [BenchResult]) -> [BenchTarget] {
    var targets: [BenchTarget] = []
    for operation in ["map", "fault", "unmap"] {
      func p99(_ load: Load) -> Double? {
        results.first {
          $0.name == "pager: p99 of an unrelated \(operation)"
            && $0.subject == "ranged, \(load.rawValue)"
        }?.medianNanoseconds
      }
      guard let faulting = p99(.faulting) else { continue }
      for load in [Load.idle, .sleeping, .computing] {
        guard let other = p99(load) else { continue }
        targets.append(
          BenchTarget(
            name: "pager, \(operation): ranged, 32 faulting against \(load.rawValue), at most",
            required: 2, measured: faulting / other, met: faulting <= 2 * other))
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
