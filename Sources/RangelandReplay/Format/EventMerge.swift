// SPDX-License-Identifier: Apache-2.0
//
// One stream from lists that are each ordered by time.
//
// Guarantee: at equal times beginnings come first and ends last, calls before faults.

struct EventMerge: IteratorProtocol {
  let beginnings: [RecordedBeginning]
  let calls: [RecordedCall]
  let faults: [RecordedFault]
  let ends: [(thread: Int, time: UInt64)]
  private var taken = (beginning: 0, call: 0, fault: 0, end: 0)

  init(
    beginnings: [RecordedBeginning], calls: [RecordedCall], faults: [RecordedFault],
    ends: [(thread: Int, time: UInt64)]
  ) {
    self.beginnings = beginnings
    self.calls = calls
    self.faults = faults
    self.ends = ends
  }

  mutating func next() -> RecordedEvent? {
    let never = UInt64.max
    let begin = taken.beginning < beginnings.count ? beginnings[taken.beginning].time : never
    let call = taken.call < calls.count ? calls[taken.call].enter : never
    let fault = taken.fault < faults.count ? faults[taken.fault].time : never
    let end = taken.end < ends.count ? ends[taken.end].time : never
    let first = min(min(begin, call), min(fault, end))
    if first == never { return nil }
    if begin == first {
      taken.beginning += 1
      return .begin(beginnings[taken.beginning - 1])
    }
    if call == first {
      taken.call += 1
      return .call(calls[taken.call - 1])
    }
    if fault == first {
      taken.fault += 1
      return .fault(faults[taken.fault - 1])
    }
    taken.end += 1
    return .end(thread: ends[taken.end - 1].thread, time: ends[taken.end - 1].time)
  }
}
