// SPDX-License-Identifier: Apache-2.0
//
// What one run of a replay measured.

import Rangeland

/// One run of a plan under one policy.
public struct ReplayRun: Sendable {
  /// What operations of one kind cost, waits for locks included, waits for the recorded order not.
  public struct Operation: Sendable {
    public var operation: OperationKind
    public var count: Int
    public var medianNanoseconds: UInt64
  }

  public var policy: LockPolicy
  /// From the first thread's start to the last one's end.
  public var nanoseconds: UInt64
  public var operations: Int
  /// Time that threads waited for steps of others that come before theirs, summed over threads.
  public var dependencyNanoseconds: UInt64
  /// Steps that came to something else than recorded, and a difference of the mappings at the end.
  public var mismatches: Int
  /// The first few of them in words.
  public var examples: [String]
  public var byOperation: [Operation]
  /// The waits for locks; nil for a run that did not count them.
  public var statistics: LockStatistics?
}
