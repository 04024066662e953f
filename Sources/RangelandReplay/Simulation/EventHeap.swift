// SPDX-License-Identifier: Apache-2.0
//
// What happens next in a simulation: a binary heap by time, and among equal times by the order in which the events were
// made, so that a simulation always goes the same way.

struct EventHeap: ~Copyable {
  struct Event {
    var time: UInt64
    /// Number of the event (44 bits), thread (20 bits).
    var key: UInt64

    @inline(__always)
    var thread: Int { Int(key & 0xf_ffff) }

    @inline(__always)
    static func < (left: Event, right: Event) -> Bool {
      left.time != right.time ? left.time < right.time : left.key < right.key
    }
  }

  /// The most threads that an event can name.
  static let threadLimit = 1 << 20

  private var events: UnsafeMutablePointer<Event>
  private var capacity: Int
  private(set) var count = 0
  private(set) var number: UInt64 = 0

  init(capacity: Int) {
    self.capacity = max(16, capacity)
    events = .allocate(capacity: self.capacity)
  }

  deinit { events.deallocate() }

  /// Adds an event; returns its key.
  mutating func push(_ time: UInt64, _ thread: Int) -> UInt64 {
    if count == capacity {
      let larger = UnsafeMutablePointer<Event>.allocate(capacity: capacity * 2)
      larger.moveInitialize(from: events, count: count)
      events.deallocate()
      events = larger
      capacity *= 2
    }
    number &+= 1
    let event = Event(time: time, key: number << 20 | UInt64(thread))
    var index = count
    count &+= 1
    while index > 0 {
      let parent = (index &- 1) >> 1
      if !(event < events[parent]) { break }
      events[index] = events[parent]
      index = parent
    }
    events[index] = event
    return event.key
  }

  /// Takes the next event out.
  mutating func pop() -> Event? {
    if count == 0 { return nil }
    let top = events[0]
    count &-= 1
    let event = events[count]
    var index = 0
    while true {
      var child = 2 &* index &+ 1
      if child >= count { break }
      if child &+ 1 < count, events[child &+ 1] < events[child] { child &+= 1 }
      if !(events[child] < event) { break }
      events[index] = events[child]
      index = child
    }
    events[index] = event
    return top
  }
}
