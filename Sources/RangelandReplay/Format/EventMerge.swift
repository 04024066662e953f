// SPDX-License-Identifier: Apache-2.0
//
// One stream from lists that are each ordered by time.
//
// Guarantee: at equal times beginnings come first and ends last; between them calls, faults, acquisitions,
// then what the scheduler did.

/// The events of a recording, each kind in a list ordered by time.
struct EventLists {
  var beginnings: [RecordedBeginning] = []
  var calls: [RecordedCall] = []
  var faults: [RecordedFault] = []
  var acquisitions: [RecordedAcquisition] = []
  var scheduling: [RecordedScheduling] = []
  var ends: [(thread: Int, time: UInt64)] = []
}

struct EventMerge: IteratorProtocol {
  private let lists: EventLists
  private var taken = (
    beginning: 0, call: 0, fault: 0, acquisition: 0, scheduling: 0, end: 0
  )

  init(_ lists: EventLists) { self.lists = lists }

  mutating func next() -> RecordedEvent? {
    let never = UInt64.max
    let begin =
      taken.beginning < lists.beginnings.count ? lists.beginnings[taken.beginning].time : never
    let call = taken.call < lists.calls.count ? lists.calls[taken.call].enter : never
    let fault = taken.fault < lists.faults.count ? lists.faults[taken.fault].time : never
    let acquisition =
      taken.acquisition < lists.acquisitions.count
      ? lists.acquisitions[taken.acquisition].time : never
    let scheduling =
      taken.scheduling < lists.scheduling.count ? lists.scheduling[taken.scheduling].time : never
    let end = taken.end < lists.ends.count ? lists.ends[taken.end].time : never
    let first = min(min(begin, call), min(fault, acquisition), min(scheduling, end))
    if first == never { return nil }
    if begin == first {
      taken.beginning += 1
      return .begin(lists.beginnings[taken.beginning - 1])
    }
    if call == first {
      taken.call += 1
      return .call(lists.calls[taken.call - 1])
    }
    if fault == first {
      taken.fault += 1
      return .fault(lists.faults[taken.fault - 1])
    }
    if acquisition == first {
      taken.acquisition += 1
      return .acquisition(lists.acquisitions[taken.acquisition - 1])
    }
    if scheduling == first {
      taken.scheduling += 1
      return .scheduling(lists.scheduling[taken.scheduling - 1])
    }
    taken.end += 1
    let last = lists.ends[taken.end - 1]
    return .end(thread: last.thread, time: last.time)
  }
}
