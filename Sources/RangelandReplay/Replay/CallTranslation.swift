// SPDX-License-Identifier: Apache-2.0
//
// What a recorded call or fault becomes in a replay, as far as the layout model can tell when it has its turn.
//
// A call that the product has is done as it was recorded. One that it does not have is *substituted*: its effect
// on the layout is applied, and it is counted under a name that says what it was.

import Glibc
import Rangeland

/// The part of a recording's history that the planner has placed so far decides what the next call does.
struct Translation {
  /// In the order in which the thread does them; empty for calls without an effect on the space.
  var steps: [ReplayStep] = []
  /// What the model learns.
  var effect = LayoutEffect.none
  /// The name under which it is counted as substituted.
  var substituted: String?

  private init(_ steps: [ReplayStep], _ effect: LayoutEffect, substituted: String? = nil) {
    self.steps = steps
    self.effect = effect
    self.substituted = substituted
  }

  private static func nothing(_ name: String) -> Translation {
    Translation([], .none, substituted: name)
  }

  // MARK: calls

  init(_ call: RecordedCall, _ model: LayoutModel) {
    var programBreak = model.programBreak
    let effect = call.effect(programBreak: &programBreak)
    if let errno = call.errno {
      self = Self.failed(call, errno, model)
      return
    }
    switch effect {
    case .none:
      self = call.makesThread ? Translation([], .none) : .nothing(call.kind.name)
    case .map(let area): self = Self.map(call, area, effect, model)
    case .unmap(let range):
      self =
        call.kind == .munmap
        ? Translation([ReplayStep(.unmap, range)], effect)
        : Translation(
          [ReplayStep(.substituteUnmapping, range)], effect, substituted: call.kind.name)
    case .protect(let range, let protection):
      self = Self.protect(call, range, protection, effect, model)
    case .move(let from, let to, let keepsSource):
      self = Self.move(from, to, keepsSource, effect, model)
    case .advise(let range): self = Self.advise(call, range, model)
    }
  }

  private static func map(
    _ call: RecordedCall, _ area: RecordedArea, _ effect: LayoutEffect, _ model: LayoutModel
  ) -> Translation {
    let flags = call.kind == .mmap ? call.arguments[3] : 0
    if let name = call.kind == .mmap ? Self.missingMapping(area, flags) : call.kind.name {
      return Translation([ReplayStep(.substituteMapping, area)], effect, substituted: name)
    }
    if flags & LinuxFlag.mapFixed != 0 {
      return Translation([ReplayStep(.mapReplacing, area)], effect)
    }
    guard model.isFree(area.start..<area.end) else {
      // Events are missing: the address was given out although something stands there.
      return Translation(
        [ReplayStep(.substituteMapping, area)], effect, substituted: "mmap over a mapping")
    }
    return Translation([ReplayStep(.map, area)], effect)
  }

  /// What a mapping has that the product's own do not; nil for plain anonymous memory.
  private static func missingMapping(_ area: RecordedArea, _ flags: UInt64) -> String? {
    if area.backing != .anonymous { return "mmap of a file" }
    for (flag, name) in LinuxFlag.mapWithout where flags & flag != 0 { return "mmap \(name)" }
    return nil
  }

  private static func protect(
    _ call: RecordedCall, _ range: Range<UInt64>, _ protection: Protection, _ effect: LayoutEffect,
    _ model: LayoutModel
  ) -> Translation {
    func step(_ range: Range<UInt64>) -> ReplayStep {
      var step = ReplayStep(.protect, range)
      step.protection = Rangeland.Protection(protection)
      return step
    }
    let missing = call.kind == .pkeyMprotect ? call.kind.name : nil
    if model.covers(range) { return Translation([step(range)], effect, substituted: missing) }
    // Events are missing: it succeeded over a hole that we see.
    let pieces = model.pieces(of: range).map { step($0.start..<$0.end) }
    return Translation(pieces, effect, substituted: missing ?? "mprotect over a hole")
  }

  /// `mremap`: pages are not moved, the mapping is made anew.
  private static func move(
    _ from: Range<UInt64>, _ to: Range<UInt64>, _ keepsSource: Bool, _ effect: LayoutEffect,
    _ model: LayoutModel
  ) -> Translation {
    var after = model
    after.apply(effect)
    var steps: [ReplayStep] = []
    var added = to
    let kept = from.lowerBound..<min(from.upperBound, to.upperBound)
    if let source = model.area(at: from.lowerBound), !from.isEmpty {
      if from.lowerBound == to.lowerBound, source.end >= kept.upperBound {
        // In place: only the tail changes.
        added = kept.upperBound..<to.upperBound
        if to.upperBound < from.upperBound {
          steps.append(ReplayStep(.substituteUnmapping, to.upperBound..<from.upperBound))
        }
      } else if !keepsSource {
        steps.append(ReplayStep(.substituteUnmapping, from))
      }
    }
    if !added.isEmpty {
      for piece in after.pieces(of: added) { steps.append(ReplayStep(.substituteMapping, piece)) }
    }
    return Translation(steps, effect, substituted: "mremap")
  }

  private static func advise(
    _ call: RecordedCall, _ range: Range<UInt64>, _ model: LayoutModel
  ) -> Translation {
    guard call.kind == .madvise else { return .nothing(call.kind.name) }
    guard call.arguments[2] == LinuxFlag.adviseDontNeed else {
      return .nothing("madvise \(LinuxFlag.adviceName(call.arguments[2]))")
    }
    if model.covers(range) { return Translation([ReplayStep(.dontNeed, range)], .none) }
    let pieces = model.pieces(of: range).map { ReplayStep(.dontNeed, $0.start..<$0.end) }
    return Translation(pieces, .none, substituted: "madvise DONTNEED over a hole")
  }

  // MARK: failed calls

  /// A call that failed is done again where the product has it and would fail alike; limits, files and
  /// permissions that it does not know are not.
  private static func failed(
    _ call: RecordedCall, _ errno: Int32, _ model: LayoutModel
  ) -> Translation {
    let action: ReplayStep.Action
    switch call.kind {
    case .munmap: action = .unmap
    case .mprotect: action = .protect
    case .madvise where call.arguments[2] == LinuxFlag.adviseDontNeed: action = .dontNeed
    default: return .nothing("failed \(call.kind.name)")
    }
    let start = call.arguments[0]
    let (end, overflow) = start.addingReportingOverflow(call.arguments[1])
    guard errno == ENOMEM, action != .unmap, start % 4096 == 0, !overflow, end > start,
      end <= RecordedArea.spaceEnd
    else { return .nothing("failed \(call.kind.name)") }
    let range = start..<((end + 4095) & ~4095)
    guard let hole = model.firstHole(in: range) else {
      return .nothing("failed \(call.kind.name)")
    }
    var step = ReplayStep(action, range)
    step.expected = .failure(ENOMEM)
    var effect = LayoutEffect.none
    if action == .protect {
      let protection = Protection(argument: call.arguments[2])
      step.protection = Rangeland.Protection(protection)
      // Linux changes what comes before the hole.
      if hole > start { effect = .protect(start..<hole, protection) }
    }
    return Translation([step], effect)
  }

  // MARK: faults

  init(_ fault: RecordedFault, _ model: LayoutModel) {
    let page = fault.address & ~4095
    var step = ReplayStep(.fault, fault.address..<(page + 4096))
    step.access = fault.isWrite ? .write : fault.isFetch ? .execute : .read
    guard let area = model.area(at: fault.address) else {
      if let growth = model.stackGrowth(for: fault),
        let stack = model.area(at: growth.upperBound)
      {
        var grown = stack
        grown.start = growth.lowerBound
        grown.end = growth.upperBound
        if !grown.allows(fault) { step.expected = .refusal(.notPermitted) }
        self.init(
          [ReplayStep(.substituteMapping, grown), step], .map(grown), substituted: "stack growth")
        return
      }
      step.expected = .refusal(.notMapped)
      self.init([step], .none)
      return
    }
    if !area.allows(fault) { step.expected = .refusal(.notPermitted) }
    self.init([step], .none)
  }
}

extension RecordedArea {
  /// Whether the mapping's rights allow the access (x86-64: any right lets a page be read).
  func allows(_ fault: RecordedFault) -> Bool {
    if fault.isWrite { return protection.contains(.write) }
    if fault.isFetch { return protection.contains(.execute) }
    return !protection.isEmpty
  }
}

extension RecordedCall {
  /// Whether a successful call may have made a thread of the program (of `clone3` the flags are not
  /// recorded); what is left makes another process.
  var makesThread: Bool {
    kind == .clone3 || kind == .clone && arguments[0] & LinuxFlag.cloneThread != 0
  }
}
