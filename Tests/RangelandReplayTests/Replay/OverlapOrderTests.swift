// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import RangelandReplay

@Suite struct OverlapOrderTests {
  /// A step that was added, remembered page by page.
  private struct Step {
    var range: Range<UInt64>
    var isWriter: Bool
    var thread: Int
    var step: Int
    var exit: UInt64
  }

  @Test func `dependencies are those of a page-by-page model`() throws {
    var random = SeededGenerator("overlap order")
    var order = OverlapOrder()
    var steps: [Step] = []
    var counts = [Int](repeating: 0, count: 5)
    var ambiguous = 0
    for time in 0..<3000 as Range<UInt64> {
      let thread = Int(random.next() % 5)
      let first = random.next() % 60
      let isWriter = random.next() % 3 != 0
      let length = isWriter ? 1 + random.next() % 12 : 1
      let range = (first * 4096)..<((first + length) * 4096)
      let exit = time + random.next() % 4
      let mark = OverlapOrder.Mark(thread: thread, step: counts[thread], exit: exit)
      let found =
        isWriter
        ? order.addWriter(range, mark, enter: time)
        : order.addReader(page: range.lowerBound, mark, enter: time)

      var expected: [Int: Int] = [:]
      var pairs: Set<[Int]> = []
      for page in stride(from: range.lowerBound, to: range.upperBound, by: 4096) {
        // Back to the last writer of the page; what it did not see came before and is implied.
        for earlier in steps.reversed() where earlier.range.contains(page) {
          if earlier.thread != thread && (isWriter || earlier.isWriter) {
            expected[earlier.thread] = max(expected[earlier.thread] ?? 0, earlier.step + 1)
            if earlier.exit > time { pairs.insert([earlier.thread, earlier.step]) }
          }
          if earlier.isWriter { break }
        }
      }
      #expect(
        found
          == expected.map { ReplayPlan.Dependency(thread: $0.key, steps: $0.value) }
          .sorted { $0.thread < $1.thread })
      ambiguous += pairs.count
      steps.append(
        Step(range: range, isWriter: isWriter, thread: thread, step: counts[thread], exit: exit))
      counts[thread] += 1
    }
    #expect(order.ambiguousPairs == ambiguous)
  }
}
