// SPDX-License-Identifier: Apache-2.0
//
// Through which functions a program came to wait for mmap_lock, and through which those it waited for had come.

import Rangeland

/// The waits of one call chain. Times in nanoseconds.
public struct ChainWaits: Sendable {
  /// What was ahead of them when they began.
  public struct Blocker: Sendable {
    /// The innermost first; empty = not recorded.
    public var frames: [CallChains.Frame]
    /// nil = not known: a call that is not recorded.
    public var operation: OperationKind?
    public var waits: UInt64
    public var nanoseconds: UInt64
  }

  /// The innermost first; empty = not recorded.
  public var frames: [CallChains.Frame]
  /// nil = not known: a call that is not recorded.
  public var operation: OperationKind?
  public var waits: UInt64
  public var nanoseconds: UInt64
  /// Time at instants at which nobody ahead worked on the same pages.
  public var falseNanoseconds: UInt64
  public var longest: UInt64
  /// Most time first, five at most.
  public var blockers: [Blocker]

  /// Sums waits up, chain by chain.
  ///
  /// Cost: a look-up in two tables a wait; an entry for each pair of chains that met.
  struct Tally {
    /// A chain, or the operation of those that have none.
    struct Asker: Hashable {
      var chain: Int?
      var operation: OperationKind?

      var key: Asker { chain == nil ? self : Asker(chain: chain) }
    }

    private struct Pair: Hashable {
      var asker: Asker
      var blocker: Asker
    }

    private struct Sum {
      /// The first that is known: a chain's operation is one, but may lie too far behind its fault to be seen as its.
      var operation: OperationKind?
      var waits: UInt64 = 0
      var nanoseconds: UInt64 = 0
      var falseNanoseconds: UInt64 = 0
      var longest: UInt64 = 0

      mutating func add(_ time: UInt64, _ falsely: UInt64, _ operation: OperationKind?) {
        self.operation = self.operation ?? operation
        waits += 1
        nanoseconds += time
        falseNanoseconds += falsely
        longest = max(longest, time)
      }
    }

    static let blockerLimit = 5
    private var sums: [Asker: Sum] = [:]
    private var pairs: [Pair: Sum] = [:]

    mutating func add(
      _ asker: Asker, behind blocker: Asker, _ nanoseconds: UInt64, falsely: UInt64
    ) {
      sums[asker.key, default: Sum()].add(nanoseconds, falsely, asker.operation)
      pairs[Pair(asker: asker.key, blocker: blocker.key), default: Sum()].add(
        nanoseconds, falsely, blocker.operation)
    }

    /// How many chains waited.
    var count: Int { sums.count }

    /// The `limit` that waited longest, most time first.
    func longest(_ limit: Int, _ chains: CallChains) -> [ChainWaits] {
      func frames(_ asker: Asker) -> [CallChains.Frame] { asker.chain.map(chains.chain) ?? [] }
      func isBefore(_ left: (key: Asker, value: Sum), _ right: (key: Asker, value: Sum)) -> Bool {
        (right.value.nanoseconds, left.key.chain ?? -1, left.key.operation?.rawValue ?? 99)
          < (left.value.nanoseconds, right.key.chain ?? -1, right.key.operation?.rawValue ?? 99)
      }
      let first = sums.sorted(by: isBefore).prefix(limit)
      var blockers: [Asker: [(key: Asker, value: Sum)]] = [:]
      for (asker, _) in first { blockers[asker] = [] }
      for (pair, sum) in pairs { blockers[pair.asker]?.append((pair.blocker, sum)) }
      return first.map { asker, sum in
        ChainWaits(
          frames: frames(asker), operation: sum.operation, waits: sum.waits,
          nanoseconds: sum.nanoseconds, falseNanoseconds: sum.falseNanoseconds,
          longest: sum.longest,
          blockers: (blockers[asker] ?? []).sorted(by: isBefore).prefix(Self.blockerLimit).map {
            Blocker(
              frames: frames($0.key), operation: $0.value.operation, waits: $0.value.waits,
              nanoseconds: $0.value.nanoseconds)
          })
      }
    }
  }
}
