// SPDX-License-Identifier: Apache-2.0
//
// `bench space`: forks of many mappings (D-4).

import CRangeland
import Foundation
import Glibc
import Rangeland
import Synchronization

/// How long a fork of so many mappings takes, half of them with a page that was written to, and how long a thread
/// that stores to one of the pages all the time has to wait at most: of spaces under every policy, and of this process.
struct ForkBench {
  var rounds: Int

  private static let sizes = [1_000, 10_000]
  private static let base: Address = 0x3000_0000_0000

  func run(progress: (String) -> Void) throws -> [BenchResult] {
    var times: [Key: [Double]] = [:]
    var stalls: [Key: [Double]] = [:]
    for round in 0...rounds {
      for size in Self.sizes {
        for subject in LockPolicy.allCases.map(\.rawValue) + ["kernel"] {
          progress("round \(round)/\(rounds): fork \(subject), \(size) mappings")
          let run =
            if let policy = LockPolicy(rawValue: subject) {
              try space(policy, size)
            } else {
              try kernel(size)
            }
          if round == 0 { continue }
          let key = Key(subject: subject, size: size)
          times[key, default: []].append(run.time)
          stalls[key, default: []].append(run.stall)
        }
      }
    }
    var results: [BenchResult] = []
    for (what, samples) in [("time", times), ("longest stall of a writer", stalls)] {
      for size in Self.sizes {
        for subject in LockPolicy.allCases.map(\.rawValue) + ["kernel"] {
          let cell = BenchCell(
            name: "fork, \(size) mappings: \(what)", subject: subject, threads: 1
          ) { _ in [] }
          results.append(BenchResult(cell, samples[Key(subject: subject, size: size)]!))
        }
      }
    }
    return results
  }

  private struct Key: Hashable {
    var subject: String
    var size: Int
  }

  /// In nanoseconds.
  private struct Run {
    var time: Double
    var stall: Double
  }

  private func space(_ policy: LockPolicy, _ size: Int) throws -> Run {
    let memory = try PhysicalMemory(frameLimit: 1 << 16)
    let space = try AddressSpace(policy: policy, memory: memory)
    _ = try space.map(
      length: UInt64(size) * Address.pageSize, at: .fixed(Self.base), protection: [.read, .write])
    for i in 0..<UInt64(size) {
      if i & 1 == 0 {
        try space.store(i, at: Self.base + i * Address.pageSize)
      } else {
        try space.protect(at: Self.base + i * Address.pageSize, length: Address.pageSize, .read)
      }
    }
    precondition(space.usage.mappings == size, "bench: the mappings have merged")
    var child: AddressSpace?
    return measure(
      store: { try! space.store($0, at: Self.base) },
      fork: { child = try! space.fork() }, end: { withExtendedLifetime(child) { child = nil } })
  }

  private func kernel(_ size: Int) throws -> Run {
    let length = size * 4096
    let start = mmap(nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let start, start != MAP_FAILED else { throw KernelRefusal(call: "mmap", code: errno) }
    defer { munmap(start, length) }
    madvise(start, length, MADV_NOHUGEPAGE)
    for i in 0..<size {
      if i & 1 == 0 {
        (start + i * 4096).storeBytes(of: 1, as: UInt64.self)
      } else if mprotect(start + i * 4096, 4096, PROT_READ) != 0 {
        throw KernelRefusal(call: "mprotect", code: errno)
      }
    }
    nonisolated(unsafe) let word = start.assumingMemoryBound(to: Atomic<UInt64>.self)
    var child: Int32 = 0
    return measure(
      store: { word.pointee.store($0, ordering: .relaxed) },
      fork: { child = rl_kernel_fork() }, end: { waitpid(child, nil, 0) })
  }

  /// A few forks beside a thread that stores: the median of their times, and the longest store.
  private func measure(
    store: @escaping @Sendable (UInt64) -> Void, fork: () -> Void, end: () -> Void
  ) -> Run {
    let stops = Stops()
    let group = DispatchGroup()
    group.enter()
    let thread = Thread {
      var longest: UInt64 = 0
      var last = rl_monotonic_ns()
      while !stops.isOver.load(ordering: .relaxed) {
        store(last)
        let now = rl_monotonic_ns()
        if stops.isForking.load(ordering: .relaxed) { longest = max(longest, now - last) }
        last = now
      }
      stops.longest.store(longest, ordering: .relaxed)
      group.leave()
    }
    thread.start()
    var times: [UInt64] = []
    for _ in 0..<5 {
      usleep(1_000)
      stops.isForking.store(true, ordering: .relaxed)
      let start = rl_monotonic_ns()
      fork()
      times.append(rl_monotonic_ns() - start)
      // The first store after it ends the stall.
      usleep(200)
      stops.isForking.store(false, ordering: .relaxed)
      end()
    }
    stops.isOver.store(true, ordering: .relaxed)
    group.wait()
    return Run(
      time: Double(times.sorted()[2]), stall: Double(stops.longest.load(ordering: .relaxed)))
  }

  private final class Stops: Sendable {
    let isOver = Atomic<Bool>(false)
    let isForking = Atomic<Bool>(false)
    let longest = Atomic<UInt64>(0)
  }

  /// Ten times the mappings take ten times as long, with half as much again for what no longer fits a cache.
  static func targets(_ results: [BenchResult]) -> [BenchTarget] {
    LockPolicy.allCases.compactMap { policy in
      func time(_ size: Int) -> Double? {
        results.first {
          $0.name == "fork, \(size) mappings: time" && $0.subject == policy.rawValue
        }?.medianNanoseconds
      }
      guard let few = time(sizes[0]), let many = time(sizes[1]) else { return nil }
      return BenchTarget(
        name: "fork, 10,000 mappings against 1,000: \(policy.rawValue), at most",
        required: 15, measured: many / few, met: many <= 15 * few)
    }
  }
}
