// SPDX-License-Identifier: Apache-2.0
//
// A plan on the kernel itself: a helper process makes the recorded calls, with a thread for each recorded one.
//
// Guarantee: a helper that dies, hangs or cannot do it is an error with a reason; it ends with the run, and with this
//   process.
// Mechanism: shared memory (KernelReplay.h). Each run has a helper of its own, since nothing but its end takes seals
//   away. The helper tells where its heap is before the plan's addresses are made.

import CKernelProtocol
import CRangeland
import Glibc
import Rangeland
import SystemPackage

/// Why a plan was not run on the kernel.
enum KernelReplayError: Error, Equatable {
  case interrupted
  case unavailable(String)
}

/// Runs of one plan on the running kernel. For one thread.
final class KernelReplay {
  private let plan: ReplayPlan
  private let files: ReplayFiles
  private var placement: KernelPlacement
  private let path: String
  private let descriptor: Int32
  private let memory: UnsafeMutableRawPointer
  private let layout: KernelReplayLayout
  /// What the last run had no place for, by kind.
  private(set) var leftOut: [OperationKind: Int] = [:]

  private var header: UnsafeMutablePointer<kr_header> {
    memory.assumingMemoryBound(to: kr_header.self)
  }

  /// How long nothing may happen before a run is given up, in nanoseconds.
  private static let patience: UInt64 = 60_000_000_000

  init(_ plan: ReplayPlan, _ files: ReplayFiles) throws(KernelReplayError) {
    let helper = KernelHelper.find()
    guard helper.isThere else {
      throw .unavailable(
        "there is no \(helper.path): the helper is built with the package and stays beside the program"
      )
    }
    path = helper.path
    self.plan = plan
    self.files = files
    placement = KernelPlacement(plan)
    layout = KernelReplayLayout(plan)
    descriptor = kr_make_memory(UInt64(layout.bytes))
    guard descriptor >= 0 else {
      throw .unavailable("memory for its plan: \(Errno(rawValue: -descriptor))")
    }
    let mapped = mmap(nil, layout.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
    guard let mapped, mapped != MAP_FAILED else {
      let problem = Errno(rawValue: errno)
      close(descriptor)
      throw .unavailable("memory for its plan: \(problem)")
    }
    memory = mapped
  }

  deinit {
    munmap(memory, layout.bytes)
    close(descriptor)
  }

  /// Makes the calls once.
  ///
  /// - Parameter isCancelled: asked ten times a second.
  func run(isCancelled: () -> Bool) throws(KernelReplayError) -> KernelRun {
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<kr_header>.size)
    header.pointee.thread_count = UInt64(plan.threads.count)
    if let heap = placement.heap {
      header.pointee.heap_place = heap.lowerBound % (2 << 20)
      header.pointee.heap_room = heap.upperBound - heap.lowerBound
    }
    var descriptors = files.descriptors.filter { $0 >= 0 }.map { (ours: $0, childs: $0) }
    descriptors.append((ours: descriptor, childs: descriptor))
    let helper: ChildProcess
    do {
      helper = try ChildProcess(
        [path, "replay", "\(descriptor)", "\(getpid())"], descriptors: descriptors)
    } catch {
      throw .unavailable(String(describing: error))
    }
    try wait(for: helper, in: KR_STARTING, isCancelled)
    placement.heapPlace = placement.heap == nil ? nil : header.pointee.heap_start
    let made = KernelPlan(
      plan, placement, files, buffer: header.pointee.buffer, steps: layout.steps(memory),
      calls: layout.calls(memory), dependencies: layout.dependencies(memory))
    leftOut = made.leftOut
    layout.write(plan, callCount: made.callCount, to: memory)
    kp_signal(&header.pointee.state, &header.pointee.state_sleepers, UInt32(KR_GO))
    try wait(for: helper, in: KR_GO, isCancelled)
    // What is shared goes back until the next run writes it anew: it is larger than the plan itself.
    defer { madvise(memory, layout.bytes, MADV_REMOVE) }
    return result()
  }

  /// Waits until the helper is in another state than `state`.
  private func wait(
    for helper: ChildProcess, in state: Int, _ isCancelled: () -> Bool
  ) throws(KernelReplayError) {
    // A short replay would be over before the first look below.
    if isCancelled() { throw .interrupted }
    var done = header.pointee.done
    var lastChange = rl_monotonic_ns()
    while kp_wait(&header.pointee.state, &header.pointee.state_sleepers, UInt32(state), 100)
      == UInt32(state)
    {
      if isCancelled() { throw .interrupted }
      if let ending = helper.wait(milliseconds: 0) {
        // It may have said why, or have come to the end, meanwhile.
        if header.pointee.state != UInt32(state) { break }
        throw .unavailable("the helper has died (\(ending))")
      }
      if header.pointee.done != done {
        done = header.pointee.done
        lastChange = rl_monotonic_ns()
      } else if rl_monotonic_ns() - lastChange > Self.patience {
        throw .unavailable("the helper stands still")
      }
    }
    if header.pointee.state == UInt32(KR_FAILED) {
      throw .unavailable(String(cString: kr_message(header)))
    }
  }

  // MARK: results

  private func result() -> KernelRun {
    let times = layout.times(memory)
    let made = layout.steps(memory)
    let steps = plan.steps.reader
    let first = plan.setup.count
    let byOperation = StepTimes.medians(
      plan.steps.indices,
      operation: { made[first + $0].action == UInt8(KR_NONE) ? nil : steps[$0].operation },
      time: { times[first + $0] })
    return KernelRun(
      nanoseconds: header.pointee.elapsed, operations: byOperation.reduce(0) { $0 + $1.count },
      dependencyNanoseconds: header.pointee.waited, faults: Int(header.pointee.faults),
      mismatches: Int(header.pointee.difference_count), examples: examples(),
      byOperation: byOperation)
  }

  private func examples() -> [String] {
    let count = min(Int(header.pointee.difference_count), Int(KR_EXAMPLES))
    return UnsafeBufferPointer(start: kr_differences(header), count: count).map { difference in
      let index = Int(difference.step)
      let step =
        index < plan.setup.count ? plan.setup[index] : plan.steps[index - plan.setup.count]
      let name = step.operation?.name ?? "\(step.action)"
      let found =
        difference.result == Int64(KR_REFUSED)
        ? "a refusal"
        : (-4095..<0).contains(difference.result)
          ? "errno \(-difference.result)"
          : "the result \(hex(UInt64(bitPattern: difference.result)))"
      return "\(name) of \(hex(step.start))-\(hex(step.end)) came to \(found), recorded was "
        + (index < plan.setup.count ? "the mapping at the start" : "\(step.expected)")
    }
  }
}

/// One run of a plan on the kernel.
public struct KernelRun: Sendable {
  /// From the first thread's start to the last one's end.
  public var nanoseconds: UInt64
  /// Operations that had a place.
  public var operations: Int
  /// Time that threads waited for steps of others that come before theirs, summed over threads.
  public var dependencyNanoseconds: UInt64
  /// Page faults that the kernel counted: fewer than recorded where it maps more than the page that was touched.
  public var faults: Int
  /// Steps that came to something else than recorded, those that make the mappings at the start among them.
  public var mismatches: Int
  /// The first few of them in words.
  public var examples: [String]
  /// Costs, without the clock's.
  public var byOperation: [ReplayRun.Operation]
}
