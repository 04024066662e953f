// SPDX-License-Identifier: Apache-2.0
//
// One thing that a thread of a replay does.

import Rangeland

/// What a step of a replay came to, or is expected to come to.
public enum ReplayOutcome: Hashable, Sendable, CustomStringConvertible {
  case success
  /// The call failed with this errno.
  case failure(Int32)
  /// The access was refused.
  case refusal(AccessFault.Reason)
  /// The call succeeded with another value than was recorded.
  case value(UInt64)

  public var description: String {
    switch self {
    case .success: "success"
    case .failure(let errno): "errno \(errno)"
    case .refusal(let reason): "\(reason)"
    case .value(let value): "the result \(hex(value))"
    }
  }
}

/// An operation on the space, or the start of another thread, in the order of its thread.
public struct ReplayStep: Sendable {
  /// What is done.
  public enum Action: UInt8, Sendable {
    /// Maps anonymous memory at the recorded address, which has to be free.
    case map
    /// The same, replacing what is there (`MAP_FIXED`).
    case mapReplacing
    case unmap
    case protect
    case dontNeed
    case fault
    /// Makes a recorded call through the Linux face.
    case call
    /// Asks which pages are in memory.
    case residency
    /// Copies the whole space and lets go of the copy.
    case fork
    /// Maps pages of the kernel's own.
    case insertSpecial
    /// Says where the heap begins; the break is there then. Not an operation.
    case setHeap
    /// Applies the effect of what the product has no call for: a mapping appears.
    case substituteMapping
    /// The same: mappings go.
    case substituteUnmapping
    /// Starts the thread whose number is `start`. Not an operation.
    case spawn
  }

  public var action: Action
  /// The pages; for a fault the byte address in `start`.
  public var start: UInt64
  public var end: UInt64
  var protection: Rangeland.Protection = []
  var sharing: Sharing = .private
  var growsDown = false
  var access: AccessKind = .read
  /// The number of a mapped file, and the offset of `start` in it.
  var file: UInt64?
  var pageOffset: UInt64 = 0
  /// For `call`: its position in `ReplayPlan.calls`.
  var call: UInt32 = 0
  /// For `call`: what it is, as reports name it.
  var callOperation: OperationKind?
  /// For `call`: what it does to mappings over its whole range, as a simulation sees it.
  var callEffect = SimulationStep.Effect.none
  /// What the recording says came of it.
  public var expected: ReplayOutcome = .success
  /// The dependencies, as positions in `ReplayPlan.dependencies`.
  var dependencies = 0..<0

  init(_ action: Action, _ range: Range<UInt64>) {
    self.action = action
    start = range.lowerBound
    end = range.upperBound
  }

  /// A mapping with the attributes of `area`, over all of it.
  init(_ action: Action, _ area: RecordedArea) {
    self.init(action, area.start..<area.end)
    protection = Rangeland.Protection(area.protection)
    sharing = area.isShared ? .shared : .private
    switch area.backing {
    case .anonymous, .heap: break
    case .stack: growsDown = true
    case .file(let number, let offset):
      // Files without a name get a number each: they never merge.
      file = number.map { UInt64($0) } ?? Self.nameless + area.start
      pageOffset = offset >> 12
    case .kernel: file = Self.nameless + area.start
    }
  }

  /// Above the numbers of files that have names.
  private static let nameless: UInt64 = 1 << 48

  /// The operation as reports name it; nil for what is none (`spawn`).
  public var operation: OperationKind? {
    switch action {
    case .call: callOperation
    case .setHeap: nil
    case .residency: .residency
    case .fork: .fork
    case .insertSpecial: .insertSpecial
    case .map, .mapReplacing: .map
    case .unmap: .unmap
    case .protect: .protect
    case .dontNeed: .dontNeed
    case .fault: .fault
    case .substituteMapping, .substituteUnmapping: .substitute
    case .spawn: nil
    }
  }
}

extension Rangeland.Protection {
  /// The rights of a recorded mapping.
  init(_ recorded: RangelandReplay.Protection) { self.init(rawValue: UInt32(recorded.rawValue)) }
}
