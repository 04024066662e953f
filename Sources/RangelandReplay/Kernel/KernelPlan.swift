// SPDX-License-Identifier: Apache-2.0
//
// A plan as the helper process takes it: system calls at the addresses where the recorded ones have their place.
//
// Mechanism: programs make the same calls again and again, and a call takes four times the room of a step: one that was
//   made not long ago is not written a second time.

import CKernelProtocol
import Rangeland

/// The steps of a plan in the helper's words. Made for one helper: its heap is at a place of its own.
struct KernelPlan {
  /// Where they are put: the memory that is shared with the helper, or a test's. The steps of the setup come first.
  private let steps: UnsafeMutablePointer<kr_step>
  private let calls: UnsafeMutablePointer<kr_call>
  private let dependencies: UnsafeMutablePointer<kr_dependency>
  private var stepCount = 0
  private(set) var callCount = 0
  private var dependencyCount = 0
  /// Calls that were written, by a hash of theirs; the last one of those that share it.
  private var recentCalls = [UInt32](repeating: .max, count: Self.recentLimit)

  /// A power of two.
  private static let recentLimit = 1 << 12

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
    steps: UnsafeMutablePointer<kr_step>, calls: UnsafeMutablePointer<kr_call>,
    dependencies: UnsafeMutablePointer<kr_dependency>
  ) {
    self.plan = plan
    self.placement = placement
    self.files = files
    self.buffer = buffer
    self.steps = steps
    self.calls = calls
    self.dependencies = dependencies
    for step in plan.setup { add(step) }
    for step in plan.steps { add(step) }
  }

  private mutating func add(_ step: ReplayStep) {
    var made = kr_step()
    made.action = UInt8(KR_NONE)
    made.first_dependency = write(plan.dependencies[step.dependencies])
    switch step.expected {
    case .failure(let errno): made.expected = Int16(-errno)
    case .refusal: made.expected = Int16(KR_REFUSED)
    case .success, .value: break
    }
    var isPlaced = true
    switch step.action {
    case .spawn:
      made.action = UInt8(KR_SPAWN)
      made.what = step.start
    case .setHeap: break
    case .fork: made.action = UInt8(KR_FORK)
    case .fault:
      let page = step.start & ~4095
      if let place = placement.place(of: page..<page + 4096) {
        made.action = UInt8(KR_TOUCH)
        made.what = place + step.start % 4096
        made.access = UInt8(step.access == .write ? KR_WRITE : KR_READ)
      } else {
        isPlaced = false
      }
    default:
      if let call = systemCall(step) {
        made.action = UInt8(KR_CALL)
        made.what = UInt64(write(call))
      } else {
        isPlaced = false
      }
    }
    if !isPlaced, let operation = step.operation { leftOut[operation, default: 0] += 1 }
    (steps + stepCount).initialize(to: made)
    stepCount += 1
  }

  /// The place of a call, which is there once it is written.
  private mutating func write(_ call: kr_call) -> Int {
    let recent = Self.hash(call) & (Self.recentLimit - 1)
    let known = Int(recentCalls[recent])
    if known != UInt32.max, Self.isSame(call, calls[known]) { return known }
    recentCalls[recent] = UInt32(callCount)
    (calls + callCount).initialize(to: call)
    callCount += 1
    return callCount - 1
  }

  /// Where the dependencies of a step begin.
  private mutating func write(_ found: ArraySlice<ReplayPlan.Dependency>) -> UInt32 {
    if found.isEmpty { return KR_NO_DEPENDENCY }
    let first = dependencyCount
    for dependency in found {
      (dependencies + dependencyCount).initialize(
        to: kr_dependency(thread: UInt32(dependency.thread), steps: UInt32(dependency.steps)))
      dependencyCount += 1
    }
    dependencies[dependencyCount - 1].thread |= KR_LAST_DEPENDENCY
    return UInt32(first)
  }

  private static func hash(_ call: kr_call) -> Int {
    // The golden ratio's fraction, as of Knuth, "Sorting and Searching", 6.4.
    let factor: UInt64 = 0x9e37_79b9_7f4a_7c15
    var hash: UInt64 = 0
    withUnsafeBytes(of: call) {
      for word in $0.bindMemory(to: UInt64.self) { hash = (hash ^ word) &* factor }
    }
    return Int(hash >> 40)
  }

  private static func isSame(_ left: kr_call, _ right: kr_call) -> Bool {
    withUnsafeBytes(of: left) { left in
      withUnsafeBytes(of: right) { left.elementsEqual($0) }
    }
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
