// SPDX-License-Identifier: Apache-2.0
//
// What recorded calls and the steps of a replay are in a simulation: modes, pages, effects.

import Rangeland

extension ReplayStep {
  /// What the step does to the mappings.
  var simulatedEffect: SimulationStep.Effect {
    if expected != .success { return .none }
    switch action {
    case .map, .mapReplacing, .substituteMapping: return .map
    case .unmap, .substituteUnmapping: return .unmap
    case .protect: return .protect
    case .insertSpecial: return .map
    case .call: return callEffect
    case .dontNeed, .fault, .residency, .fork, .setHeap, .spawn: return .none
    }
  }
}

extension OperationKind {
  /// Whether the operation asks for the lock of the space as a writer.
  var locksForWriting: Bool {
    switch self {
    case .fault, .dontNeed, .query, .advise, .populate, .residency, .synchronize, .writeBack,
      .written, .insertSpecial, .pin:
      false
    case .map, .unmap, .protect, .substitute, .exit, .remap, .setBreak, .growStack, .setAdvice,
      .lockMemory, .seal, .setPolicy, .configure, .fork, .truncate, .remapPages:
      true
    }
  }
}

extension RecordedCall {
  /// The pages that the call works on, if its arguments tell.
  var lockedRange: Range<UInt64>? {
    let start: UInt64
    switch kind {
    case .mmap:
      guard errno == nil else { return nil }
      start = UInt64(bitPattern: result)
    case .munmap, .mprotect, .pkeyMprotect, .madvise, .mlock, .mlock2, .munlock, .msync, .mincore,
      .mseal, .mremap, .remapFilePages:
      start = arguments[0]
    default: return nil
    }
    let (end, overflow) = (start & ~4095).addingReportingOverflow(arguments[1])
    guard !overflow, arguments[1] > 0, end <= RecordedArea.spaceEnd else { return nil }
    return (start & ~4095)..<((end + 4095) & ~4095)
  }
}
