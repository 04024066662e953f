// SPDX-License-Identifier: Apache-2.0
//
// The semaphore of a simulated space, move by move as `ReadWriteSemaphore`: polling, the queue, hand-off.
//
// Where several threads poll and the semaphore becomes free, the one that has polled longest gets it; on a machine it is
// any of them.

extension LockModel {
  /// Whether a request may enter that is not in the queue.
  @inline(__always)
  private func mayEnter(_ writes: Bool) -> Bool {
    if !writes { return !writerHolds && queueFirst < 0 }
    // A writer may pass a queue whose first was not woken in vain yet.
    return !writerHolds && readers == 0 && !handsOff
  }

  mutating func enterSemaphore(_ place: Int32) -> Bool {
    let writes = at(place).pointee.writes
    if mayEnter(writes) {
      enter(writes)
      return true
    }
    at(place).pointee.place = .polling
    at(place).pointee.previousQueued = pollLast
    at(place).pointee.nextQueued = -1
    if pollLast >= 0 { at(pollLast).pointee.nextQueued = place } else { pollFirst = place }
    pollLast = place
    return false
  }

  @inline(__always)
  private mutating func enter(_ writes: Bool) {
    if writes { writerHolds = true } else { readers &+= 1 }
  }

  /// A thread has polled long enough: it goes to the queue.
  mutating func queue(_ thread: Int) {
    let place = Int32(thread)
    guard at(place).pointee.place == .polling else { return }
    removePoller(place)
    at(place).pointee.place = .queued
    at(place).pointee.previousQueued = queueLast
    at(place).pointee.nextQueued = -1
    if queueLast >= 0 { at(queueLast).pointee.nextQueued = place } else { queueFirst = place }
    queueLast = place
    passOn()
  }

  private mutating func removePoller(_ place: Int32) {
    let (previous, next) = (at(place).pointee.previousQueued, at(place).pointee.nextQueued)
    if previous >= 0 { at(previous).pointee.nextQueued = next } else { pollFirst = next }
    if next >= 0 { at(next).pointee.previousQueued = previous } else { pollLast = previous }
    at(place).pointee.place = .none
  }

  /// Takes the first out of the queue; a demand for hand-off was its own.
  private mutating func removeFirst() {
    let next = at(queueFirst).pointee.nextQueued
    at(queueFirst).pointee.place = .none
    queueFirst = next
    if next >= 0 { at(next).pointee.previousQueued = -1 } else { queueLast = -1 }
    handsOff = false
  }

  mutating func leaveSemaphore(writes: Bool) {
    if writes { writerHolds = false } else { readers &-= 1 }
    servePollers()
    if queueFirst >= 0 { passOn() }
  }

  /// Lets in whoever polls and may enter.
  private mutating func servePollers() {
    var place = pollFirst
    while place >= 0 {
      let next = at(place).pointee.nextQueued
      let writes = at(place).pointee.writes
      if mayEnter(writes) {
        removePoller(place)
        enter(writes)
        signal(place, .granted)
      }
      place = next
    }
  }

  /// Grants what can be granted to the front of the queue, in order.
  mutating func passOn() {
    while queueFirst >= 0 {
      let place = queueFirst
      let request = at(place)
      if !request.pointee.writes {
        if writerHolds {
          handsOff = true
          return
        }
        readers &+= 1
        removeFirst()
        signal(place, .granted)
        continue
      }
      if writerHolds || readers > 0 {
        if request.pointee.wasWokenInVain { handsOff = true }
        return
      }
      if !request.pointee.wasWokenInVain {
        signal(place, .invited)
        return
      }
      writerHolds = true
      removeFirst()
      signal(place, .granted)
      return
    }
    servePollers()
  }

  /// An invited thread tries again; `signals` tells whether it got the lock.
  mutating func lookAgain(_ thread: Int) {
    let place = Int32(thread)
    guard at(place).pointee.place == .queued else { return }
    at(place).pointee.wasWokenInVain = true
    passOn()
  }
}
