// SPDX-License-Identifier: Apache-2.0
//
// Wide requests among a stream of narrow ones, and a narrow one among wide ones: nobody starves, judged by how often a
// waiting request is overtaken, against the bound that is stated. How long it waited is told, and judges nothing.

import CRangeland
import RangelandTestSupport
import Synchronization
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct StarvationTests {
    struct Stream: CustomTestStringConvertible, Sendable {
      let testDescription: String
      let fairness: RangeLock.Fairness
      /// Of the request that must not starve, and those of the stream.
      let range: KeyRange
      let mode: LockMode
      let streamRanges: [KeyRange]
      let streamMode: LockMode
    }

    static let narrow: [KeyRange] = (0..<4).map { KeyRange(first: $0 * 64, last: $0 * 64 + 7) }

    static let streams: [Stream] = [RangeLock.Fairness.firstComeFirstServed, .throughput].flatMap {
      fairness in
      [
        Stream(
          testDescription: "a whole-space writer, narrow readers, \(fairness)", fairness: fairness,
          range: .all, mode: .write, streamRanges: narrow, streamMode: .read),
        Stream(
          testDescription: "a whole-space writer, narrow writers, \(fairness)", fairness: fairness,
          range: .all, mode: .write, streamRanges: narrow, streamMode: .write),
        Stream(
          testDescription: "a whole-space reader, narrow writers, \(fairness)", fairness: fairness,
          range: .all, mode: .read, streamRanges: narrow, streamMode: .write),
        Stream(
          testDescription: "a narrow writer, whole-space readers, \(fairness)", fairness: fairness,
          range: narrow[1], mode: .write, streamRanges: [.all], streamMode: .read),
        Stream(
          testDescription: "a narrow reader, whole-space writers, \(fairness)", fairness: fairness,
          range: narrow[1], mode: .read, streamRanges: [.all], streamMode: .write),
      ]
    }

    /// What the threads tell each other. Requests of the one that must not starve are numbered from 1.
    final class Watch: Sendable {
      /// The request that was seen in the queue last, and the one that was granted last.
      let seen = Atomic<Int>(0)
      let granted = Atomic<Int>(0)
      /// Requests of the stream that were granted before `seen`, though they were made after it was seen.
      let overtakings = Atomic<Int>(0)
      let most = Atomic<Int>(0)
      let longest = Atomic<UInt64>(0)
      let streamed = Atomic<Int>(0)
      let isOver = Atomic<Bool>(false)
    }

    @Test(arguments: streams)
    func `Nobody starves beside a stream`(_ stream: Stream) {
      let requests = max(3, Int(25 * stressScale))
      let bound = stream.fairness == .throughput ? RangeLock.Fairness.mostPasses : 0
      withWatchdog(seconds: 300, stream.testDescription) {
        let lock = makeLock(.init(granuleShift: 4, fairness: stream.fairness))
        let watch = Watch()
        let threads = (0..<4).map { place in
          TestThread { Self.stream(lock, stream, place, watch) }
        }
        for request in 1...requests {
          let waiter = TestThread { Self.ask(lock, stream, request, watch) }
          // Seen in the queue, or granted at once.
          while watch.granted.load(ordering: .acquiring) < request {
            if Self.isWaiting(lock, stream) {
              watch.seen.store(request, ordering: .releasing)
              break
            }
            rl_yield()
          }
          waiter.join()
        }
        watch.isOver.store(true, ordering: .relaxed)
        for thread in threads { thread.join() }
        let most = watch.most.load(ordering: .relaxed)
        #expect(most <= bound)
        print(
          "\(stream.testDescription): \(requests) requests, \(watch.streamed.load(ordering: .relaxed)) of the stream;",
          "overtaken \(most) times at most (bound \(bound)), the longest wait",
          "\(watch.longest.load(ordering: .relaxed) / 1000) us")
      }
    }

    /// The waiting thread is not of the stream: its request has the range that no other has.
    private static func isWaiting(_ lock: RangeLock, _ stream: Stream) -> Bool {
      lock.requests(overlapping: stream.range).contains {
        $0.state == .waiting && $0.range == stream.range && $0.mode == stream.mode
          && $0.thread != RangeLock.currentThread
      }
    }

    private static func ask(_ lock: RangeLock, _ stream: Stream, _ request: Int, _ watch: Watch) {
      let asked = rl_monotonic_ns()
      let hold = lock.lock(over: stream.range, stream.mode)
      // While it holds: who holds a conflicting range later sees it.
      watch.granted.store(request, ordering: .releasing)
      watch.longest.max(rl_monotonic_ns() - asked, ordering: .relaxed)
      watch.most.max(watch.overtakings.exchange(0, ordering: .relaxed), ordering: .relaxed)
      hold.release()
    }

    private static func stream(_ lock: RangeLock, _ stream: Stream, _ place: Int, _ watch: Watch) {
      let range = stream.streamRanges[place % stream.streamRanges.count]
      var streamed = 0
      while !watch.isOver.load(ordering: .relaxed) {
        // Before asking: a request that is in the queue now came first.
        let inFront = watch.seen.load(ordering: .acquiring)
        let hold = lock.lock(over: range, stream.streamMode)
        // While we hold the other cannot: it was granted before, and said so, or has been overtaken.
        if range.overlaps(stream.range), inFront > watch.granted.load(ordering: .acquiring) {
          watch.overtakings.add(1, ordering: .relaxed)
        }
        hold.release()
        streamed += 1
      }
      watch.streamed.add(streamed, ordering: .relaxed)
    }
  }
}
