// SPDX-License-Identifier: Apache-2.0
//
// One writer of the whole space among readers of narrow ranges: how often it is overtaken, and how long it waits.
//
// An overtaking is counted by the readers themselves, not by the lock: a reader that began to ask after the writer was
// seen in the queue, and holds its range before the writer has held. It cannot be counted by mistake: while the reader
// holds, the writer does not, so it has either been granted before, and said so, or was overtaken.

import CRangeland
import Foundation
import RangeLocks
import Synchronization

/// What a run of the writer among readers showed.
struct Overtaking {
  /// Times that the writer had the whole space, and of those the times that it was seen waiting first.
  var writes = 0
  var watched = 0
  /// The most readers that overtook one request of the writer, and all that overtook any.
  var most = 0
  var sum = 0
  /// The longest waits, in nanoseconds.
  var longestWrite: UInt64 = 0
  var longestRead: UInt64 = 0
  var reads = 0
}

/// The threads' common state. Requests of the writer are numbered from 1.
private final class OvertakingState: Sendable {
  /// The request that was seen waiting last, and the one that was granted last.
  let seen = Atomic<Int>(0)
  let granted = Atomic<Int>(0)
  /// The request that the writer is making.
  let asking = Atomic<Int>(0)
  /// Readers that overtook the request that was seen waiting.
  let overtakings = Atomic<Int>(0)
  let isOver = Atomic<Bool>(false)
  let longestRead = Atomic<UInt64>(0)
  let reads = Atomic<Int>(0)
}

extension Overtaking {
  /// Lets one writer and `readers` readers run for a time.
  static func measured(_ lock: RangeLock, readers: Int, milliseconds: Int) -> Overtaking {
    let state = OvertakingState()
    let group = DispatchGroup()
    for place in 0..<readers {
      start(in: group) { read(lock, state, place) }
    }
    let result = Mutex(Overtaking())
    start(in: group) {
      let written = write(lock, state)
      result.withLock { $0 = written }
    }
    // This thread looks who waits. It sleeps in between: the others need the processors.
    let end = rl_monotonic_ns() + UInt64(milliseconds) * 1_000_000
    while rl_monotonic_ns() < end {
      let asking = state.asking.load(ordering: .acquiring)
      if asking > state.granted.load(ordering: .acquiring),
        asking != state.seen.load(ordering: .relaxed),
        isWriterWaiting(lock), state.asking.load(ordering: .acquiring) == asking
      {
        state.seen.store(asking, ordering: .releasing)
      }
      usleep(50)
    }
    state.isOver.store(true, ordering: .relaxed)
    group.wait()
    var overtaking = result.withLock { $0 }
    overtaking.longestRead = state.longestRead.load(ordering: .relaxed)
    overtaking.reads = state.reads.load(ordering: .relaxed)
    return overtaking
  }

  private static func isWriterWaiting(_ lock: RangeLock) -> Bool {
    lock.requests().contains { $0.mode == .write && $0.state == .waiting }
  }

  private static func start(in group: DispatchGroup, _ body: @escaping @Sendable () -> Void) {
    group.enter()
    Thread {
      body()
      group.leave()
    }.start()
  }

  private static func read(_ lock: RangeLock, _ state: OvertakingState, _ place: Int) {
    let first = UInt64(1) << 40 + UInt64(place) << 30
    let range = KeyRange(first..<(first + 4096))
    var (longest, reads): (UInt64, Int) = (0, 0)
    while !state.isOver.load(ordering: .relaxed) {
      // Before asking: whoever is in front now stays in front.
      let inFront = state.seen.load(ordering: .acquiring)
      let asked = rl_monotonic_ns()
      let hold = lock.lock(over: range, .read)
      longest = max(longest, rl_monotonic_ns() - asked)
      if inFront > state.granted.load(ordering: .acquiring) {
        state.overtakings.add(1, ordering: .relaxed)
      }
      hold.release()
      reads += 1
    }
    state.longestRead.max(longest, ordering: .relaxed)
    state.reads.add(reads, ordering: .relaxed)
  }

  private static func write(_ lock: RangeLock, _ state: OvertakingState) -> Overtaking {
    var result = Overtaking()
    while !state.isOver.load(ordering: .relaxed) {
      result.writes += 1
      state.asking.store(result.writes, ordering: .releasing)
      let asked = rl_monotonic_ns()
      let hold = lock.lock(over: .all, .write)
      result.longestWrite = max(result.longestWrite, rl_monotonic_ns() - asked)
      // While we hold: a reader that holds later sees it.
      state.granted.store(result.writes, ordering: .releasing)
      let overtakings = state.overtakings.exchange(0, ordering: .relaxed)
      hold.release()
      if state.seen.load(ordering: .relaxed) == result.writes { result.watched += 1 }
      result.most = max(result.most, overtakings)
      result.sum += overtakings
      // The readers get ahead, so that there is somebody to wait for.
      usleep(200)
    }
    return result
  }
}
