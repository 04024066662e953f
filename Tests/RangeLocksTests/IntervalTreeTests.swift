// SPDX-License-Identifier: Apache-2.0
//
// The tree of a shard against a plain list: order, balance, summaries and every answer.

import RangelandTestSupport
import Testing

@testable import RangeLocks

extension LockTests {
  @Suite struct IntervalTreeTests {
    @Test(arguments: [4, 30, 400])
    func `Any sequence of changes agrees with a list`(_ size: Int) {
      var random = SeededRandom(for: "interval tree of \(size)")
      var tree = IntervalTree()
      var entries: [EntryRef] = []
      let pool = testPool
      var stamps: UInt64 = 0
      for step in 0..<20_000 {
        let grows = entries.count < size / 2 || (entries.count < size && random.chance(50))
        if grows {
          let entry = EntryRef(pool.take()!)
          let first = random.below(200) << (random.chance(5) ? 50 : 0)
          let last = first + random.below(random.chance(10) ? 200 : 5)
          entry.initialize(
            KeyRange(first: first, last: last), random.chance(20) ? .write : .read, token: 0)
          entry.pointer.pointee.shape = 1
          if random.chance(50) {
            stamps += 1
            entry.waiting.pointee.stamp = stamps
            entry.pointer.pointee.state.store(Entry.stamped, ordering: .relaxed)
          }
          if entry.pointer.pointee.state.load(ordering: .relaxed) == 0, random.chance(50) {
            // In one walk, if nothing overlaps.
            let range = entry.range
            let overlaps = entries.contains { $0.range.overlaps(range) }
            let isIn = tree.insertUnlessOverlapping(entry.link0, entry)
            #expect(isIn == !overlaps, "SEED=\(random.seed), step \(step)")
            if !isIn {
              pool.give(entry.raw)
              continue
            }
          } else {
            tree.insert(entry.link0, entry, stamp: entry.stamp)
          }
          entries.append(entry)
        } else if random.chance(30) {
          let entry = entries[Int(random.below(UInt64(entries.count)))]
          entry.pointer.pointee.mode = .read
          if random.chance(50) { entry.pointer.pointee.state.store(0, ordering: .relaxed) }
          tree.refresh(entry.link0)
        } else {
          let entry = entries.remove(at: Int(random.below(UInt64(entries.count))))
          tree.remove(entry.link0)
          pool.give(entry.raw)
        }
        if step % 16 == 0 || size < 10 { #expect(tree.checked() == UInt32(entries.count)) }
        let first = random.below(210)
        let range = KeyRange(first: first, last: first + random.below(4))
        let overlapping = entries.filter { $0.range.overlaps(range) }
        #expect(tree.overlaps(range) == !overlapping.isEmpty, "SEED=\(random.seed), step \(step)")
        #expect(tree.hasConflict(range, .write) == !overlapping.isEmpty)
        let hasWriter = overlapping.contains { $0.pointer.pointee.mode == .write }
        #expect(tree.hasConflict(range, .read) == hasWriter, "SEED=\(random.seed), step \(step)")
        for mode in [LockMode.read, .write] {
          let stamp = random.below(stamps + 2)
          let blockers = overlapping.filter {
            $0.stamp < stamp && $0.pointer.pointee.mode.conflicts(with: mode)
          }
          let blocker = tree.lastBlocker(of: range, mode, stamp)
          #expect(
            blocker?.pointer.pointee.first == blockers.map { $0.pointer.pointee.first }.max(),
            "SEED=\(random.seed), step \(step)")
          #expect(blocker.map { one in blockers.contains { $0 == one } } ?? true)
        }
        var seen: [UInt64] = []
        tree.forEach(overlapping: range) { entry in
          seen.append(entry.pointer.pointee.first)
          return true
        }
        #expect(seen == overlapping.map { $0.pointer.pointee.first }.sorted())
      }
      // Haeupler, Sen, Tarjan: at most twice the logarithm of the number of entries, and one more as we count.
      #expect(tree.root.rank <= 18, "the rank of a balanced tree of 400 is at most 18")
      for entry in entries {
        tree.remove(entry.link0)
        pool.give(entry.raw)
      }
      #expect(tree.root == nil)
    }
  }
}
