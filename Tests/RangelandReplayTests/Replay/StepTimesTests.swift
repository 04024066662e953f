// SPDX-License-Identifier: Apache-2.0

import Rangeland
import Testing

@testable import RangelandReplay

/// Medians by counting are those of sorting.
@Suite struct StepTimesTests {
  @Test func `medians are those of the sorted times`() {
    var random = SeededGenerator("medians")
    for _ in 0..<200 {
      let count = Int.random(in: 0..<40, using: &random)
      let kinds: [OperationKind?] = [.map, .fault, .unmap, nil]
      let steps = (0..<count).map { _ in
        (
          kind: kinds.randomElement(using: &random)!,
          // Some share their upper half.
          time: UInt32.random(in: 0...3, using: &random) << 16
            | UInt32.random(in: 0...0xffff, using: &random)
        )
      }
      let found = StepTimes.medians(
        0..<count, operation: { steps[$0].kind }, time: { steps[$0].time })
      for kind in OperationKind.allCases {
        let times = steps.filter { $0.kind == kind }.map(\.time).sorted()
        let one = found.first { $0.operation == kind }
        #expect(one?.count ?? 0 == times.count)
        if !times.isEmpty {
          #expect(one?.medianNanoseconds == UInt64(times[times.count / 2]))
        }
      }
      #expect(
        found.map(\.operation)
          == OperationKind.allCases.filter { kind in
            steps.contains { $0.kind == kind }
          })
    }
  }
}
