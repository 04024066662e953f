// SPDX-License-Identifier: Apache-2.0
//
// What happens when the system has no memory for a request or for an edge between two.

import CRangeland
import RangelandTestSupport
import Testing

@testable import RangeLocks

#if RANGELAND_CHECKS
  extension LockTests {
    @Suite struct MemoryTests {
      static let range = KeyRange(3...9)

      @Test func `A try without memory fails and changes nothing`() {
        let lock = RangeLock()
        NodePool.refuseTakes(after: 0, count: 1)
        #expect(!lock.isFree(over: Self.range, .write))
        #expect(lock.isFree(over: Self.range, .write))
        #expect(lock.holdCount == 0)
      }

      @Test func `A blocking request waits for memory`() {
        withWatchdog("no memory for a request") {
          let lock = RangeLock()
          NodePool.refuseTakes(after: 0, count: 50)
          lock.withWriteLock(over: Self.range) {}
          #expect(lock.holdCount == 0)
        }
      }

      @Test func `A request without memory gives up at its deadline`() {
        withWatchdog("no memory until the deadline") {
          let lock = RangeLock()
          NodePool.refuseTakes(after: 0, count: 1 << 30)
          let granted =
            lock.lock(
              over: Self.range, .write, deadline: rl_monotonic_ns() + 1_000_000) != nil
          NodePool.refuseTakes(after: 0, count: 0)
          #expect(!granted)
        }
      }

      /// The writer's request and its edge to the first reader get memory, the edge to the second does not.
      @Test(arguments: [0, 1])
      func `A request that runs out of memory half way is granted in the end`(_ edges: Int) {
        withWatchdog("no memory for an edge") {
          let before = NodePool.shared.blocksInUse
          let lock = RangeLock()
          let readers = (0..<2).map { _ in Held(lock.lock(over: Self.range, .read)) }
          let journal = Journal()
          let writer = TestThread {
            NodePool.refuseTakes(after: 1 + edges, count: 20)
            lock.withWriteLock(over: Self.range) { journal.note("writer") }
          }
          // With an edge it waits without being in the lists; without, it asks again until the edges fit.
          if edges == 0 { waitUntil { lock.waiterCount == 1 } }
          for reader in readers { reader.release() }
          writer.join()
          #expect(journal.all == ["writer"])
          #expect(lock.holdCount == 0)
          #expect(NodePool.shared.blocksInUse == before)
        }
      }

      @Test func `A request that ran out of memory half way can give up`() {
        withWatchdog("no memory for an edge, then a deadline") {
          let before = NodePool.shared.blocksInUse
          let lock = RangeLock()
          let readers = (0..<2).map { _ in Held(lock.lock(over: Self.range, .read)) }
          TestThread {
            NodePool.refuseTakes(after: 2, count: 1 << 30)
            let granted =
              lock.lock(
                over: Self.range, .write, deadline: rl_monotonic_ns() + 1_000_000) != nil
            #expect(!granted)
          }.join()
          #expect(lock.waiterCount == 0)
          #expect(lock.isFree(over: Self.range, .read))
          for reader in readers { reader.release() }
          // The drop of the last edge recycled the request.
          #expect(NodePool.shared.blocksInUse == before)
        }
      }
    }
  }
#endif
