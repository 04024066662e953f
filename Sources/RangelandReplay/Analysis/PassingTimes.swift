// SPDX-License-Identifier: Apache-2.0
//
// How long the kernel's lock took from a release to the thread that waited for it: what a wait costs beyond the hold that
// it waits for.
//
// Part of it are cache lines that move and, of a thread that sleeps, its wake-up; part are the tracepoints: that of the
// release comes before it, that of the acquisition after it.
// Mechanism: for each wait the last incompatible hold that ended in it, also of one who passed the waiter; the thread's
//   scheduler events tell whether it slept.

import Rangeland

/// From the release of the lock until the next one had it, in nanoseconds.
public struct PassingTimes: Sendable, Equatable {
  /// The median of threads that kept their processor; nil where fewer than `fewest` are recorded.
  public var polling: UInt64?
  /// The lower quartile of threads that slept, those left out that took longer than `longestWake`: some waited for a
  /// processor.
  public var sleeping: UInt64?

  static let fewest = 20
  private static let longestWake: UInt64 = 100_000
  /// Later acquisitions that are looked at for one that passed the waiter.
  private static let reach = 64

  init() {}

  init(_ recording: Recording) {
    guard recording.info.eventClasses.contains([.acquisitions, .switches]) else { return }
    var polled: [UInt64] = []
    var slept: [UInt64] = []
    var turns = [Int](repeating: 0, count: recording.threads.count)
    /// Those before the present one that may still be held.
    var open: [RecordedAcquisition] = []
    let all = recording.acquisitions
    for (index, wait) in all.enumerated() {
      open.removeAll { $0.released ?? .max <= wait.time }
      if wait.isGranted, let release = Self.lastRelease(before: wait, open, all, after: index) {
        switch Self.pause(in: wait, recording, &turns[wait.thread]) {
        case .none: polled.append(wait.granted - release)
        case .sleep:
          if wait.granted - release <= Self.longestWake { slept.append(wait.granted - release) }
        case .preemption: break
        }
      }
      if wait.isGranted { open.append(wait) }
    }
    polling = Self.quantile(&polled, 2)
    sleeping = Self.quantile(&slept, 4)
  }

  /// When the last hold ended that stood in the way of `wait`.
  private static func lastRelease(
    before wait: RecordedAcquisition, _ open: [RecordedAcquisition], _ all: [RecordedAcquisition],
    after index: Int
  ) -> UInt64? {
    var last: UInt64?
    func look(_ other: RecordedAcquisition) {
      guard other.thread != wait.thread, other.isGranted, wait.isWrite || other.isWrite,
        var end = other.released, other.granted < wait.granted
      else { return }
      if !wait.isWrite, let writer = other.downgradedAfter { end = other.granted + writer }
      if end > wait.time && end <= wait.granted { last = max(last ?? 0, end) }
    }
    for other in open { look(other) }
    for other in all[(index + 1)...].prefix(reach) {
      if other.time >= wait.granted { break }
      look(other)
    }
    return last
  }

  private enum Pause { case none, sleep, preemption }

  /// What the scheduler did with the thread while it waited.
  private static func pause(
    in wait: RecordedAcquisition, _ recording: Recording, _ turn: inout Int
  ) -> Pause {
    let events = recording.threads[wait.thread].scheduling
    while turn < events.count, recording.scheduling[Int(events[turn])].time < wait.time {
      turn += 1
    }
    var found = Pause.none
    for event in events[turn...] {
      let event = recording.scheduling[Int(event)]
      if event.time >= wait.granted { break }
      switch event.change {
      case .switchedOut(.preempted): return .preemption
      case .switchedOut: found = .sleep
      case .switchedIn, .woken: break
      }
    }
    return found
  }

  private static func quantile(_ values: inout [UInt64], _ part: Int) -> UInt64? {
    if values.count < fewest { return nil }
    values.sort()
    return values[values.count / part]
  }
}
