// SPDX-License-Identifier: Apache-2.0
//
// What is in a recording, in numbers.
//
// Cost: one pass over all events, and one over calls and faults in the order of their effects, with a
// layout model beside.

/// Totals of a recording.
public struct RecordingSummary: Sendable {
  /// Calls of one kind.
  public struct Calls: Equatable, Sendable {
    public var kind: CallKind
    public var count: Int
    public var failed: Int
    /// Those that changed mappings or dropped pages (`RecordedCall.changesMappings`).
    public var changing: Int
  }

  /// What is known of the kernel's `mmap_lock`; times in nanoseconds, summed over threads.
  public struct Locking: Equatable, Sendable {
    public var readers = 0
    public var writers = 0
    /// Tries that failed and waits that were ended.
    public var refused = 0
    public var waited: UInt64 = 0
    public var longestWait: UInt64 = 0
    /// Without the holds whose end is not known.
    public var held: UInt64 = 0
  }

  public var threads: Int
  /// The most threads that lived at one moment; nil if the recording does not tell when they ended.
  public var threadsAtOnce: Int?
  /// By kind, the most frequent first.
  public var calls: [Calls] = []
  public var userFaults = 0
  public var kernelFaults = 0
  public var writeFaults = 0
  /// Acquisitions of the kernel's `mmap_lock`.
  public var locking = Locking()
  /// Times at which a thread left its processor.
  public var switches = 0
  /// Those of them at which it could have gone on.
  public var preemptions = 0
  /// Times at which a thread that waited was made ready.
  public var wakeUps = 0
  /// Distinct pages with a fault.
  public var touchedPages = 0
  /// Faults outside every mapping that the recording explains: what the program survived by a
  /// signal handler, and what an inferred layout misses.
  public var unmappedFaults = 0
  public var durationNanoseconds: UInt64
  public var initialAreas: Int
  /// The most mappings at one moment, from the layout model (it may merge more than the kernel).
  public var peakAreas: Int
  /// The lowest and the highest address that was ever mapped.
  public var mappedSpan: Range<UInt64>?

  public var totalCalls: Int { calls.reduce(0) { $0 + $1.count } }
  public var changingCalls: Int { calls.reduce(0) { $0 + $1.changing } }

  public init(_ recording: Recording) {
    threads = recording.threads.count
    threadsAtOnce = Self.most(recording.threads)
    durationNanoseconds = recording.duration
    initialAreas = recording.initialLayout.count
    peakAreas = 0
    count(recording)
    replay(recording)
  }

  static func most(_ threads: [RecordedThread]) -> Int? {
    guard threads.count < 2 || threads.contains(where: { $0.end != nil }) else { return nil }
    // At equal times an end counts before a beginning.
    var changes = threads.map { ($0.beginning.time, 1) }
    changes += threads.compactMap { thread in thread.end.map { ($0, -1) } }
    changes.sort { $0 < $1 }
    var now = 0
    var most = 0
    for (_, change) in changes {
      now += change
      most = max(most, now)
    }
    return most
  }

  private mutating func count(_ recording: Recording) {
    var byKind: [CallKind: Calls] = [:]
    for call in recording.calls {
      var entry = byKind[call.kind] ?? Calls(kind: call.kind, count: 0, failed: 0, changing: 0)
      entry.count += 1
      if call.errno != nil { entry.failed += 1 }
      if call.changesMappings { entry.changing += 1 }
      byKind[call.kind] = entry
    }
    calls = byKind.values.sorted { ($1.count, $0.kind.name) < ($0.count, $1.kind.name) }
    var pages: Set<UInt64> = []
    for fault in recording.faults {
      if fault.fromKernel { kernelFaults += 1 } else { userFaults += 1 }
      if fault.isWrite { writeFaults += 1 }
      pages.insert(fault.address >> 12)
    }
    touchedPages = pages.count
    for acquisition in recording.acquisitions {
      if acquisition.isWrite { locking.writers += 1 } else { locking.readers += 1 }
      if !acquisition.isGranted { locking.refused += 1 }
      locking.waited += acquisition.waited
      locking.longestWait = max(locking.longestWait, acquisition.waited)
      locking.held += acquisition.held ?? 0
    }
    for change in recording.scheduling {
      switch change.change {
      case .switchedOut(let reason):
        switches += 1
        if reason == .preempted { preemptions += 1 }
      case .switchedIn: break
      case .woken: wakeUps += 1
      }
    }
  }

  /// Follows the layout through the recording.
  private mutating func replay(_ recording: Recording) {
    var model = LayoutModel(recording.initialLayout)
    var low = UInt64.max
    var high: UInt64 = 0
    func see(_ start: UInt64, _ end: UInt64) {
      low = min(low, start)
      high = max(high, end)
    }
    for area in recording.initialLayout { see(area.start, area.end) }
    let order = recording.calls.indices.sorted {
      (recording.calls[$0].effectTime, $0) < (recording.calls[$1].effectTime, $1)
    }
    var fault = 0
    func touch(before time: UInt64) {
      while fault < recording.faults.count, recording.faults[fault].time < time {
        let touched = recording.faults[fault]
        if model.area(at: touched.address) == nil, !model.grow(for: touched) {
          unmappedFaults += 1
        }
        fault += 1
      }
    }
    for index in order {
      touch(before: recording.calls[index].effectTime)
      switch model.apply(recording.calls[index]) {
      case .map(let area): see(area.start, area.end)
      case .move(_, let to, _): see(to.lowerBound, to.upperBound)
      default: break
      }
    }
    touch(before: .max)
    peakAreas = model.peakCount
    mappedSpan = low < high ? low..<high : nil
  }
}
