// SPDX-License-Identifier: Apache-2.0
//
// The next thing that a recorded thread does, as the planner orders it.

/// What stands at the head of a thread that has begun.
enum PlannerEvent {
  case call(RecordedCall)
  case fault(RecordedFault)

  /// The moment at which it may have had its effect first.
  var enter: UInt64 {
    switch self {
    case .call(let call): call.enter
    case .fault(let fault): fault.time
    }
  }

  /// The moment at which it had its effect at the latest.
  var exit: UInt64 {
    switch self {
    case .call(let call): call.exit
    case .fault(let fault): fault.time
    }
  }

  /// Where it stands when nothing else is known. A call that makes a thread comes before all the thread does.
  var usualTime: UInt64 {
    switch self {
    case .call(let call): call.kind.mayMakeThread ? call.enter : call.effectTime
    case .fault(let fault): fault.time
    }
  }

  /// The pages that it changes or relies on, as its arguments and result tell.
  func ranges(_ model: LayoutModel) -> [Range<UInt64>] {
    switch self {
    case .fault(let fault):
      let page = fault.address & ~4095
      return [page..<(page + 4096)]
    case .call(let call):
      var programBreak = model.programBreak
      switch call.effect(programBreak: &programBreak) {
      case .none: return []
      case .map(let area): return [area.start..<area.end]
      case .unmap(let range), .protect(let range, _), .advise(let range): return [range]
      case .move(let from, let to, _): return from.isEmpty ? [to] : [from, to]
      }
    }
  }

  /// Those of its pages that have to be mapped before, if it `needsMappings`: where a move goes to is none of them.
  func neededRanges(_ model: LayoutModel) -> [Range<UInt64>] {
    if case .call(let call) = self, call.kind == .mremap {
      return Array(ranges(model).prefix(1))
    }
    return ranges(model)
  }

  /// Whether the recorded result is what the layout gives now.
  func isExplained(by model: LayoutModel) -> Bool {
    switch self {
    case .fault(let fault):
      guard let area = model.area(at: fault.address) else {
        return model.stackGrowth(for: fault) != nil
      }
      return area.allows(fault)
    case .call(let call):
      guard call.errno == nil else { return true }
      var programBreak = model.programBreak
      switch call.effect(programBreak: &programBreak) {
      case .none, .unmap: return true
      case .map(let area):
        let isReplacing = call.kind == .mmap && call.arguments[3] & LinuxFlag.mapFixed != 0
        return isReplacing || model.isFree(area.start..<area.end)
      case .protect(let range, _): return model.covers(range)
      case .advise(let range):
        return !Self.needsMappings(call) || model.covers(range)
      case .move(let from, _, _): return from.isEmpty || model.covers(from)
      }
    }
  }

  /// What it takes away; nil for events that take nothing away.
  func removal(_ model: LayoutModel) -> Range<UInt64>? {
    guard case .call(let call) = self else { return nil }
    var programBreak = model.programBreak
    switch call.effect(programBreak: &programBreak) {
    case .unmap(let range): return range
    case .move(let from, _, let keepsSource): return keepsSource || from.isEmpty ? nil : from
    default: return nil
    }
  }

  /// Whether it finds a mapping where it works: what it does cannot come after the pages are gone.
  var needsMappings: Bool {
    switch self {
    case .fault: return true
    case .call(let call):
      guard call.errno == nil else { return false }
      switch call.kind {
      case .mprotect, .pkeyMprotect, .mremap: return true
      default: return Self.needsMappings(call)
      }
    }
  }

  /// Whether advice of this kind fails over a hole.
  private static func needsMappings(_ call: RecordedCall) -> Bool {
    switch call.kind {
    case .madvise, .mlock, .mlock2, .munlock, .msync, .mincore, .mseal: true
    default: false
    }
  }
}

extension CallKind {
  var mayMakeThread: Bool {
    self == .clone || self == .clone3 || self == .fork || self == .vfork
  }
}

/// An entry of the planner's queue: the head of `thread`, if it still is.
struct PlannerHead: Comparable {
  var time: UInt64
  var thread: Int
  /// Position in the thread's steps; -1 is its beginning.
  var position: Int

  static func < (left: PlannerHead, right: PlannerHead) -> Bool {
    (left.time, left.thread, left.position) < (right.time, right.thread, right.position)
  }
}
