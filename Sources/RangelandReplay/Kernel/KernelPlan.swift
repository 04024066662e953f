// SPDX-License-Identifier: Apache-2.0
//
// A plan as the helper process takes it: system calls at the addresses where the recorded ones have their place.

import CKernelProtocol
import Rangeland

/// The steps of a plan in the helper's words. Made for one helper: its heap is at a place of its own.
struct KernelPlan {
  /// Where they are put: the memory that is shared with the helper, or a test's. The steps of the setup come first.
  private let steps: UnsafeMutablePointer<kr_step>
  private let calls: UnsafeMutablePointer<kr_call>
  private var stepCount = 0
  private var callCount = 0
  /// Operations without a place in the helper, by kind; those of the setup among them.
  private(set) var leftOut: [OperationKind: Int] = [:]

  private let plan: ReplayPlan
  private let placement: KernelPlacement
  private let files: ReplayFiles
  /// Where the helper lets calls write.
  private let buffer: UInt64

  /// - Parameter buffer: of the helper, KR_BUFFER bytes.
  @discardableResult
  init(
    _ plan: ReplayPlan, _ placement: KernelPlacement, _ files: ReplayFiles, buffer: UInt64,
    steps: UnsafeMutablePointer<kr_step>, calls: UnsafeMutablePointer<kr_call>
  ) {
    self.plan = plan
    self.placement = placement
    self.files = files
    self.buffer = buffer
    self.steps = steps
    self.calls = calls
    for step in plan.setup { add(step) }
    for step in plan.steps { add(step) }
  }

  private mutating func add(_ step: ReplayStep) {
    var made = kr_step()
    made.action = UInt32(KR_NONE)
    made.first_dependency = UInt32(step.dependencies.lowerBound)
    made.dependency_count = UInt32(step.dependencies.count)
    switch step.expected {
    case .failure(let errno): made.expected = -errno
    case .refusal: made.expected = KR_REFUSED
    case .success, .value: break
    }
    var isPlaced = true
    switch step.action {
    case .spawn:
      made.action = UInt32(KR_SPAWN)
      made.call = UInt32(step.start)
    case .setHeap: break
    case .fork: made.action = UInt32(KR_FORK)
    case .fault:
      let page = step.start & ~4095
      if let place = placement.place(of: page..<page + 4096) {
        made.action = UInt32(KR_TOUCH)
        made.address = place + step.start % 4096
        made.access = UInt32(step.access == .write ? KR_WRITE : KR_READ)
      } else {
        isPlaced = false
      }
    default:
      if let call = systemCall(step) {
        made.action = UInt32(KR_CALL)
        made.call = UInt32(callCount)
        (calls + callCount).initialize(to: call)
        callCount += 1
      } else {
        isPlaced = false
      }
    }
    if !isPlaced, let operation = step.operation { leftOut[operation, default: 0] += 1 }
    (steps + stepCount).initialize(to: made)
    stepCount += 1
  }

  // MARK: system calls

  private func systemCall(_ step: ReplayStep) -> kr_call? {
    if step.action == .call { return moved(plan.calls[Int(step.call)], step.start..<step.end) }
    guard let start = placement.place(of: step.start..<step.end) else { return nil }
    let length = step.end - step.start
    let sharing: UInt64 = step.sharing == .shared ? LinuxFlag.mapShared : 2
    func map(_ flag: UInt64) -> kr_call {
      Self.call(
        .mmap,
        LinuxArguments(
          start, length, UInt64(step.protection.rawValue), sharing | LinuxFlag.mapAnonymous | flag,
          .max), result: start)
    }
    switch step.action {
    // What stands for the kernel's own pages has nothing of them but the place.
    case .map, .insertSpecial: return map(LinuxFlag.mapFixedNoReplace)
    case .mapReplacing, .substituteMapping: return map(LinuxFlag.mapFixed)
    case .unmap, .substituteUnmapping: return Self.call(.munmap, LinuxArguments(start, length))
    case .protect:
      return Self.call(
        .mprotect, LinuxArguments(start, length, UInt64(step.protection.rawValue)))
    case .dontNeed:
      return Self.call(.madvise, LinuxArguments(start, length, LinuxFlag.adviseDontNeed))
    case .residency:
      guard length >> 12 <= UInt64(KR_BUFFER) else { return nil }
      return Self.call(.mincore, LinuxArguments(start, length, buffer))
    case .call, .spawn, .fork, .setHeap, .fault: return nil
    }
  }

  /// A call of the Linux face with the addresses of the helper.
  private func moved(_ call: ReplayCall, _ range: Range<UInt64>) -> kr_call? {
    var arguments = call.arguments
    var result: UInt64 = 0
    switch call.call {
    case .mlockall, .munlockall: break
    case .brk:
      guard let heap = placement.heap, let place = placement.heapPlace,
        call.result >= heap.lowerBound, call.result <= heap.upperBound
      else { return nil }
      result = place + (call.result - heap.lowerBound)
      if arguments.first != 0 { arguments.first = result }
    case .mremap:
      let from = KernelPlacement.pages(arguments.first, arguments.second)
      guard let source = placement.place(of: from), let target = placement.place(of: range) else {
        return nil
      }
      arguments.first = source + arguments.first % 4096
      if arguments.fourth & LinuxFlag.remapFixed != 0 { arguments.fifth = target }
      result = target
    default:
      guard let start = placement.place(of: range) else { return nil }
      // Bytes count: an argument need not be the start of a page.
      arguments.first = start + (arguments.first &- range.lowerBound)
      if call.call == .mmap { result = start }
    }
    if call.file >= 0 {
      arguments.fifth = UInt64(UInt32(bitPattern: files.descriptors[Int(call.file)]))
    }
    return Self.call(call.call, arguments, result: result)
  }

  private static func call(
    _ call: LinuxCall, _ arguments: LinuxArguments, result: UInt64 = 0
  ) -> kr_call {
    kr_call(
      number: UInt64(call.rawValue),
      arguments: (
        arguments.first, arguments.second, arguments.third, arguments.fourth, arguments.fifth,
        arguments.sixth
      ), result: Int64(bitPattern: result))
  }
}
