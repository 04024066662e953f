// SPDX-License-Identifier: Apache-2.0
//
// `bench space`: what a slow pager does to those who have nothing to do with it.

import CRangeland
import Foundation
import Glibc
import Rangeland
import Synchronization
import SystemPackage

/// Latencies of maps, faults and unmaps of one thread, alone and beside 32 others: others that fault through a pager that
/// takes 100 us for a page, and others that only sleep so long, which shows what the processors make of 32 threads.
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
  }

  func run(progress: (String) -> Void) throws -> [BenchResult] {
    var samples: [Key: [Double]] = [:]
    for round in 0...rounds {
      for policy in LockPolicy.allCases {
        for load in Load.allCases {
          progress("round \(round)/\(rounds): pager \(policy.rawValue), \(load.rawValue)")
          let latencies = try once(policy, load)
          if round == 0 { continue }
          for (i, all) in latencies.enumerated() {
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

  /// One run: the latencies of maps, faults and unmaps.
  private func once(_ policy: LockPolicy, _ load: Load) throws -> [[UInt64]] {
    let memory = try PhysicalMemory(frameLimit: 1 << 16)
    let space = try AddressSpace(policy: policy, memory: memory)
    let pages = UInt64(Self.threads) * Self.stretch
    let object = try FileObject(
      pager: SlowPager(), name: "slow", size: pages * Address.pageSize, memory: memory)
    let base = try space.map(
      object, length: pages * Address.pageSize, at: .fixed(0x1000_0000_0000), protection: .read)
    let stops = Flag()
    let group = DispatchGroup()
    if load != .idle {
      for i in 0..<UInt64(Self.threads) {
        group.enter()
        let thread = Thread {
          let own = base + i * Self.stretch * Address.pageSize
          while !stops.value.load(ordering: .relaxed) {
            if load == .sleeping {
              usleep(Self.microseconds)
            } else {
              Self.readAll(space, own, stops)
            }
          }
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
    return latencies
  }

  private final class Flag: Sendable {
    let value = Atomic<Bool>(false)
  }

  private static func readAll(_ space: AddressSpace, _ start: Address, _ stops: Flag) {
    for page in 0..<stretch where !stops.value.load(ordering: .relaxed) {
      _ = try? space.load(UInt8.self, at: start + page * Address.pageSize)
    }
    // Out of the page cache again.
    try? space.advise(.pageOut, at: start, length: stretch * Address.pageSize)
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

  /// The figure: beside those who sleep as long, and beside nobody.
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
      for load in [Load.idle, .sleeping] {
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
