// SPDX-License-Identifier: Apache-2.0
//
// Where things are in the memory that a helper process and this one share for a replay.

import CKernelProtocol
import Rangeland

struct KernelReplayLayout {
  private var threads = 0
  private var steps = 0
  private var calls = 0
  private var dependencies = 0
  private var roots = 0
  private var times = 0
  private let stepCount: Int
  /// Of all of it.
  private(set) var bytes = MemoryLayout<kr_header>.size

  init(_ plan: ReplayPlan) {
    stepCount = plan.setup.count + plan.steps.count
    func reserve(_ count: Int, _ size: Int) -> Int {
      bytes = (bytes + 63) & ~63
      defer { bytes += count * size }
      return bytes
    }
    threads = reserve(plan.threads.count, MemoryLayout<kr_thread>.stride)
    steps = reserve(stepCount, MemoryLayout<kr_step>.stride)
    dependencies = reserve(plan.dependencies.count, MemoryLayout<kr_dependency>.stride)
    roots = reserve(plan.roots.count, MemoryLayout<UInt32>.stride)
    times = reserve(stepCount, MemoryLayout<UInt32>.stride)
    // All but faults, at most, are system calls. The last: fewer are likely, and what is not used is never there.
    let callCount = plan.setup.count + plan.steps.count { $0.action != .fault }
    calls = reserve(callCount, MemoryLayout<kr_call>.stride)
  }

  /// Where a `KernelPlan` puts the steps, the calls, and what steps wait for.
  func steps(_ memory: UnsafeMutableRawPointer) -> UnsafeMutablePointer<kr_step> {
    (memory + steps).assumingMemoryBound(to: kr_step.self)
  }

  func calls(_ memory: UnsafeMutableRawPointer) -> UnsafeMutablePointer<kr_call> {
    (memory + calls).assumingMemoryBound(to: kr_call.self)
  }

  func dependencies(_ memory: UnsafeMutableRawPointer) -> UnsafeMutablePointer<kr_dependency> {
    (memory + dependencies).assumingMemoryBound(to: kr_dependency.self)
  }

  /// Writes all but what a `KernelPlan` does, and what the helper has told.
  ///
  /// - Parameter callCount: how many calls there are.
  func write(_ plan: ReplayPlan, callCount: Int, to memory: UnsafeMutableRawPointer) {
    func write<Value>(_ values: some Sequence<Value>, at offset: Int) {
      var place = memory + offset
      for value in values {
        place.storeBytes(of: value, as: Value.self)
        place += MemoryLayout<Value>.stride
      }
    }
    let first = plan.setup.count
    write(
      plan.threads.lazy.map {
        kr_thread(first: UInt32(first + $0.lowerBound), end: UInt32(first + $0.upperBound))
      }, at: threads)
    write(plan.roots.lazy.map { UInt32($0) }, at: roots)
    let header = memory.assumingMemoryBound(to: kr_header.self)
    header.pointee.bytes = UInt64(calls + callCount * MemoryLayout<kr_call>.stride)
    header.pointee.setup_count = UInt64(plan.setup.count)
    header.pointee.root_count = UInt64(plan.roots.count)
    header.pointee.prepared = UInt64(min(plan.threadsAtOnce, plan.threads.count))
    header.pointee.threads = UInt64(threads)
    header.pointee.steps = UInt64(steps)
    header.pointee.calls = UInt64(calls)
    header.pointee.dependencies = UInt64(dependencies)
    header.pointee.roots = UInt64(roots)
    header.pointee.nanoseconds = UInt64(times)
  }

  /// Nanoseconds, a step: those of the setup first.
  func times(_ memory: UnsafeMutableRawPointer) -> UnsafeBufferPointer<UInt32> {
    UnsafeBufferPointer(
      start: (memory + times).assumingMemoryBound(to: UInt32.self), count: stepCount)
  }
}
