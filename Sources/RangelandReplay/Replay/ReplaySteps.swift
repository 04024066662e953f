// SPDX-License-Identifier: Apache-2.0
//
// The steps of a plan, packed: 32 bytes each, since a recording of ten million events has as many, and a replay reads
// them where they are.

import Rangeland

/// A step in 32 bytes. What a mapping is of, where it is of a file, is in a table.
struct PackedReplayStep: BitwiseCopyable {
  /// What does not fit.
  struct Origin: Hashable {
    var file: UInt64
    var pageOffset: UInt64
  }

  private var start: UInt64
  private var end: UInt64
  /// The position of the call, or of the origin plus 1; 0 = anonymous memory.
  private var detail: UInt32
  private var firstDependency: UInt32
  private var dependencyCount: UInt32
  // Action (4), rights (3), shared, grows down, access (2), operation of the call plus 1 (6), effect (2),
  // expected: kind (2) and reason (4).
  private var bits: UInt16
  private var moreBits: UInt16

  // MARK: packing

  init(_ step: ReplayStep, origin: UInt32) {
    start = step.start
    end = step.end
    detail = step.action == .call ? step.call : origin
    firstDependency = UInt32(step.dependencies.lowerBound)
    dependencyCount = UInt32(step.dependencies.count)
    var bits = UInt16(step.action.rawValue)
    bits |= UInt16(step.protection.rawValue & 7) << 4
    if step.sharing == .shared { bits |= 1 << 7 }
    if step.growsDown { bits |= 1 << 8 }
    bits |= UInt16(step.access.rawValue) << 9
    bits |= UInt16(step.callEffect.rawValue) << 11
    self.bits = bits
    // 3 bits of the operation do not fit above.
    moreBits = Self.code(step.expected)
    let operation = step.callOperation.map { UInt16($0.rawValue) + 1 } ?? 0
    self.bits |= (operation & 7) << 13
    moreBits |= (operation >> 3) << 13
  }

  /// - Parameter origin: an entry of the table that `origin` was a position in.
  @inline(__always)
  func step(_ origin: (Int) -> Origin) -> ReplayStep {
    let action = ReplayStep.Action(rawValue: UInt8(bits & 15)).unsafelyUnwrapped
    var step = ReplayStep(action, start..<start)
    step.end = end
    step.protection = Rangeland.Protection(rawValue: UInt32(bits >> 4 & 7))
    step.sharing = bits & 1 << 7 != 0 ? .shared : .private
    step.growsDown = bits & 1 << 8 != 0
    step.access = AccessKind(rawValue: UInt8(bits >> 9 & 3)).unsafelyUnwrapped
    step.callEffect =
      SimulationStep.Effect(rawValue: UInt8(bits >> 11 & 3)).unsafelyUnwrapped
    let operation = bits >> 13 | (moreBits >> 13) << 3
    step.callOperation = operation == 0 ? nil : OperationKind(rawValue: UInt8(operation - 1))
    step.expected = Self.outcome(moreBits & 0x1fff)
    if action == .call {
      step.call = detail
    } else if detail > 0 {
      let found = origin(Int(detail - 1))
      step.file = found.file
      step.pageOffset = found.pageOffset
    }
    step.dependencies = Int(firstDependency)..<(Int(firstDependency) + Int(dependencyCount))
    return step
  }

  // MARK: codes

  private static let reasons: [AccessFault.Reason] = [
    .notMapped, .notPermitted, .notCanonical, .noPage, .outOfMemory,
  ]

  /// 0 = success, 1...4095 = an errno, 4096 and above = a refusal.
  private static func code(_ outcome: ReplayOutcome) -> UInt16 {
    switch outcome {
    case .success: 0
    case .failure(let errno): UInt16(errno)
    case .refusal(let reason): 4096 + UInt16(reasons.firstIndex(of: reason)!)
    case .value: preconditionFailure("no step of a plan expects another value: a bug of Rangeland")
    }
  }

  @inline(__always)
  private static func outcome(_ code: UInt16) -> ReplayOutcome {
    if code == 0 { return .success }
    return code < 4096 ? .failure(Int32(code)) : .refusal(reasons[Int(code - 4096)])
  }
}

/// The steps of a plan, thread by thread.
public struct ReplaySteps: RandomAccessCollection, MutableCollection, Sendable,
  ExpressibleByArrayLiteral
{
  /// Grows while a plan is made; immutable once somebody else has it.
  fileprivate final class Storage: @unchecked Sendable {
    // Sendable: changed only while one value refers to it.
    var steps = LargeList<PackedReplayStep>()
    var origins: [PackedReplayStep.Origin] = []
    var positions: [PackedReplayStep.Origin: UInt32] = [:]

    init() {}

    init(copying other: Storage) {
      for step in other.steps.elements { steps.append(step) }
      origins = other.origins
      positions = other.positions
    }

    func pack(_ step: ReplayStep) -> PackedReplayStep {
      guard step.action != .call, let file = step.file else {
        return PackedReplayStep(step, origin: 0)
      }
      let origin = PackedReplayStep.Origin(file: file, pageOffset: step.pageOffset)
      if let position = positions[origin] { return PackedReplayStep(step, origin: position) }
      origins.append(origin)
      positions[origin] = UInt32(origins.count)
      return PackedReplayStep(step, origin: UInt32(origins.count))
    }
  }

  private var storage = Storage()

  public init() {}

  public init(arrayLiteral elements: ReplayStep...) {
    for step in elements { append(step) }
  }

  public var startIndex: Int { 0 }
  public var endIndex: Int { storage.steps.count }

  public subscript(index: Int) -> ReplayStep {
    get { storage.steps[index].step { storage.origins[$0] } }
    set {
      makeUnique()
      storage.steps[index] = storage.pack(newValue)
    }
  }

  private mutating func makeUnique() {
    if !isKnownUniquelyReferenced(&storage) { storage = Storage(copying: storage) }
  }

  public mutating func append(_ step: ReplayStep) {
    makeUnique()
    storage.steps.append(storage.pack(step))
  }

  /// The steps of many threads one after the other. They are taken out of the array, thread by thread: all of them are
  /// never held twice.
  init(taking threads: inout [ReplaySteps]) {
    for index in threads.indices {
      for step in threads[index] { append(step) }
      threads[index] = ReplaySteps()
    }
  }

  /// Lends the steps to a replay, which reads them without counting references. They live as long as this value.
  var reader: Reader {
    Reader(
      steps: UnsafePointer(storage.steps.elements.baseAddress),
      owner: Unmanaged.passUnretained(storage))
  }

  /// For many threads.
  struct Reader: @unchecked Sendable {
    // Sendable: nothing changes any more.
    fileprivate let steps: UnsafePointer<PackedReplayStep>?
    fileprivate let owner: Unmanaged<Storage>

    subscript(index: Int) -> ReplayStep {
      steps.unsafelyUnwrapped[index].step { place in
        owner._withUnsafeGuaranteedRef { $0.origins[place] }
      }
    }
  }
}
