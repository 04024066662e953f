// SPDX-License-Identifier: Apache-2.0
//
// Simulated waits by the call chain of who waited.

import Rangeland

extension Simulator {
  struct ChainKey: Hashable {
    var chain: Int?
    var operation: UInt8
  }

  struct ChainSum {
    var waits: UInt64 = 0
    var nanoseconds: UInt64 = 0
    var falseNanoseconds: UInt64 = 0
  }

  /// The wait of the request at `place`, which is over now, was this thread's present step's.
  @inline(never)
  mutating func noteChain(_ thread: Int, _ place: Int32) {
    let step = at(thread).pointee.step
    let request = lock.at(place)
    let key = ChainKey(
      chain: steps.chain(thread, at: step), operation: request.pointee.operation)
    let length = now &- request.pointee.waitStart
    var sum = chainWaits[key] ?? ChainSum()
    sum.waits &+= 1
    sum.nanoseconds &+= length
    sum.falseNanoseconds &+= length &- request.pointee.trueNanoseconds
    chainWaits[key] = sum
  }

  /// The chains that waited longest, most time first.
  var longestChains: [SimulationRun.ChainWait] {
    chainWaits.sorted {
      ($1.value.nanoseconds, $0.key.chain ?? -1, $0.key.operation)
        < ($0.value.nanoseconds, $1.key.chain ?? -1, $1.key.operation)
    }.prefix(SimulationRun.chainLimit).map {
      SimulationRun.ChainWait(
        chain: $0.key.chain, operation: OperationKind(rawValue: $0.key.operation),
        waits: $0.value.waits, nanoseconds: $0.value.nanoseconds,
        falseNanoseconds: $0.value.falseNanoseconds)
    }
  }
}
