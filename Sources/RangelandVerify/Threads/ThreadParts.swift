// SPDX-License-Identifier: Apache-2.0
//
// The windows divided among threads, so that each thread's answers are determined, and what they were.

/// The parts of the windows that belong to each thread. A page between two parts stays free: no mapping reaches
/// from one to the next.
struct ThreadParts: Sendable {
  /// By thread, then by window.
  let areas: [[KernelProcess.AddressPair]]

  init(_ windows: [KernelProcess.AddressPair], threads: Int) {
    areas = (0..<UInt64(threads)).map { thread in
      windows.map { window in
        let pages = (window.end - window.start) / 4096 / UInt64(threads)
        let start = window.start + thread * pages * 4096
        return KernelProcess.AddressPair(start: start, end: start + (pages - 1) * 4096)
      }
    }
  }

  /// Whether a thread's call, whose addresses are absolute, stays in its parts.
  func contain(_ call: VerifyCall) -> Bool {
    guard call.thread < areas.count, let reach = call.kind.definition.reach(call) else {
      return false
    }
    return reach.allSatisfy(areas[call.thread].contains)
  }

  /// Whether the answer to a thread's call is the same whatever other threads do.
  func determine(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool {
    contain(call)
      && call.kind.definition.isDetermined(call, areas[call.thread], subject)
  }

  /// The answer to a call as far as it concerns the thread's parts.
  func record(
    _ index: Int, _ call: VerifyCall, _ outcome: VerifyOutcome,
    _ near: [KernelProcess.AddressPair], _ mappings: [VerifyMapping]
  ) -> RecordedAnswer {
    let own = near.compactMap { range -> KernelProcess.AddressPair? in
      for area in areas[call.thread] where range.start < area.end && area.start < range.end {
        return KernelProcess.AddressPair(
          start: max(range.start, area.start), end: min(range.end, area.end))
      }
      return nil
    }
    let listed = own.flatMap { range in
      mappings.filter { $0.start < range.end && range.start < $0.end }
    }
    return RecordedAnswer(
      index: index, call: call, outcome: outcome, near: own, mappings: listed)
  }
}

/// What both sides answered to a call.
struct RecordedAnswer: Sendable {
  var index: Int
  /// With absolute addresses.
  var call: VerifyCall
  var outcome: VerifyOutcome
  /// Where mappings were compared, in the thread's parts, and which there were.
  var near: [KernelProcess.AddressPair]
  var mappings: [VerifyMapping]
}
