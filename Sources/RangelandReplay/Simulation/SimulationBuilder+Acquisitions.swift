// SPDX-License-Identifier: Apache-2.0
//
// Which recorded acquisitions of the kernel's lock are the hold of which simulated step.

import Rangeland

extension SimulationBuilder {
  mutating func placeFault(_ recorded: RecordedFault, _ thread: Int) {
    // A fault that the word of its VMA was enough for has no acquisition.
    var held: UInt64?
    var downgraded: UInt64?
    // What the thread's next call asks for is that call's. A fault that has waited may ask once more.
    let next = nextBeginning(thread, after: recorded.time)
    var last = recorded.time
    while let acquisition = nextAcquisition(thread), acquisition.time < min(last + faultReach, next)
    {
      last = acquisition.released ?? acquisition.granted
      cursors[thread].acquisition += 1
      pass(thread, until: acquisition.time, .program)
      let stretch = passHold(acquisition, thread)
      if acquisition.isGranted {
        chain = acquisition.chain
        held = (held ?? 0) + stretch
        downgraded = acquisition.downgradedAfter
      }
    }
    if held == nil { cursors[thread].debt += fault * UInt64(max(1, pending.count)) }
    emitPending(
      thread, hold: held ?? fault * UInt64(max(1, pending.count)), downgradedAfter: downgraded)
  }

  mutating func placeCall(_ call: RecordedCall, _ thread: Int) {
    var isDone = pending.isEmpty
    var hasHold = false
    // A call may look as a reader first (`remap_file_pages`), and a fault inside it asks as one.
    let writes = pending.first?.step.operation?.locksForWriting
    let hasOwn = acquisitions(thread, before: call.exit).contains {
      $0.isGranted && $0.isWrite == writes
    }
    while let acquisition = nextAcquisition(thread), acquisition.time < call.exit {
      cursors[thread].acquisition += 1
      pass(thread, until: acquisition.time, .call)
      let held = passHold(acquisition, thread)
      guard acquisition.isGranted else { continue }
      hasHold = true
      chain = acquisition.chain
      if !isDone, acquisition.isWrite == writes || !hasOwn {
        isDone = true
        emitPending(thread, hold: held, downgradedAfter: acquisition.downgradedAfter)
      } else if let range = call.lockedRange {
        // A second one: pages brought in ahead, a part of a list of advice.
        var step = SimulationStep(
          acquisition.isWrite ? .configure : .populate, range.lowerBound, range.upperBound,
          writes: acquisition.isWrite)
        step.hold = UInt32(clamping: held)
        append(step, to: thread)
        program.operations += 1
      } else {
        program.strayAcquisitions += 1
        cursors[thread].think += held
      }
    }
    if isDone {
      pass(thread, until: call.exit, .call)
    } else if program.hasRecordedHolds && !hasHold && !program.isUnderWordOnly(call) {
      // The kernel did it without the lock.
      pass(thread, until: call.exit, .call)
      emitPending(thread, hold: 0, downgradedAfter: nil)
    } else {
      let think = cursors[thread].think
      pass(thread, until: call.exit, .call)
      let held = cursors[thread].think - think
      cursors[thread].think = think
      emitPending(thread, hold: held, downgradedAfter: nil)
    }
  }

  /// The wait and the hold of an acquisition; how long it was held, waits for a processor left out.
  private mutating func passHold(_ acquisition: RecordedAcquisition, _ thread: Int) -> UInt64 {
    program.lockWaitNanoseconds += acquisition.waited
    pass(thread, until: acquisition.granted, .wait)
    guard acquisition.isGranted, let end = acquisition.released else { return 0 }
    let think = cursors[thread].think
    cursors[thread].think = 0
    pass(thread, until: end, .call)
    let held = cursors[thread].think
    cursors[thread].think = think
    return held
  }

  private func nextAcquisition(_ thread: Int) -> RecordedAcquisition? {
    let list = recording.threads[thread].acquisitions
    let index = cursors[thread].acquisition
    return index < list.count ? recording.acquisitions[Int(list[index])] : nil
  }

  /// The acquisitions of the thread that are still to come, before `time`.
  private func acquisitions(
    _ thread: Int, before time: UInt64
  ) -> some Sequence<RecordedAcquisition> {
    recording.threads[thread].acquisitions[cursors[thread].acquisition...].lazy
      .map { recording.acquisitions[Int($0)] }.prefix { $0.time < time }
  }

  /// When the thread's next call or fault begins, after `time`.
  private mutating func nextBeginning(_ thread: Int, after time: UInt64) -> UInt64 {
    let steps = recording.threads[thread].steps
    while cursors[thread].nextEvent < steps.count {
      let begins = recording.beginning(of: steps[cursors[thread].nextEvent])
      if begins > time { return begins }
      cursors[thread].nextEvent += 1
    }
    return .max
  }

  /// Acquisitions of calls that are not recorded: the wait goes, the time stays.
  mutating func passAcquisitions(_ thread: Int, before time: UInt64) {
    while let acquisition = nextAcquisition(thread), acquisition.time < time {
      cursors[thread].acquisition += 1
      program.strayAcquisitions += 1
      pass(thread, until: acquisition.time, .program)
      program.lockWaitNanoseconds += acquisition.waited
      pass(thread, until: min(time, acquisition.granted), .wait)
    }
  }
}

extension SimulationProgram {
  /// Whether the kernel does such a call under the word of a VMA, without its lock (Linux 6.18).
  fileprivate func isUnderWordOnly(_ call: RecordedCall) -> Bool { call.kind == .madvise }
}
