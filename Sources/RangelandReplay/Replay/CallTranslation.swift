// SPDX-License-Identifier: Apache-2.0
//
// What a recorded call or fault becomes in a replay, as far as the layout model can tell when it has its turn.
//
// A call that the product has is made as it was recorded. One that it does not have is *substituted*: its effect
// on the layout is applied, and it is counted under a name that says what it was.

import Glibc
import Rangeland

/// The part of a recording's history that the planner has placed so far decides what the next call does.
struct Translation {
  /// In the order in which the thread does them; empty for calls without an effect on the space.
  var steps: [ReplayStep] = []
  /// What the one step that is a `call` calls.
  var call: ReplayCall?
  /// The pages that the steps change, if these are not their own ranges (or a fault's that makes a stack grow).
  var changes: [Range<UInt64>]?
  /// What the model learns.
  var effect = LayoutEffect.none
  /// The name under which it is counted as substituted.
  var substituted: String?

  init(_ steps: [ReplayStep], _ effect: LayoutEffect, substituted: String? = nil) {
    self.steps = steps
    self.effect = effect
    self.substituted = substituted
  }

  /// One call, which changes `range`.
  init(_ call: ReplayCall, _ range: Range<UInt64>, _ effect: LayoutEffect) {
    var step = ReplayStep(.call, range)
    switch effect {
    case .map(let area):
      step = ReplayStep(.call, area)
      (step.start, step.end) = (range.lowerBound, range.upperBound)
      step.callEffect = .map
    case .move:
      step.protection = [.read, .write]
      step.callEffect = .map
    case .none, .unmap, .protect, .advise: break
    }
    step.callOperation = call.operation
    self.init([step], effect)
    self.call = call
  }

  static func nothing(_ name: String) -> Translation {
    Translation([], .none, substituted: name)
  }

  private static let wholeSpace: Range<UInt64> = 0..<RecordedArea.spaceEnd

  /// A call that brings in more than this at once is not made: the replay has no such machine.
  private static let bringLimit: UInt64 = 4 << 30

  // MARK: calls

  init(_ call: RecordedCall, _ model: LayoutModel, _ surroundings: ReplaySurroundings) {
    if let errno = call.errno {
      self = Self.failed(call, errno, model, surroundings)
      return
    }
    if call.kind == .brk, let heap = surroundings.heap {
      self = Self.moveBreak(call, model, heap.start)
      return
    }
    if call.kind == .remapFilePages {
      self = Self.remapPages(call, model, surroundings)
      return
    }
    var programBreak = model.programBreak
    let effect = call.effect(programBreak: &programBreak)
    switch effect {
    case .none: self = Self.withoutEffect(call, model)
    case .map(let area): self = Self.map(call, area, effect, model, surroundings)
    case .unmap(let range):
      self =
        call.kind == .munmap
        ? Translation([ReplayStep(.unmap, range)], effect)
        : Translation(
          [ReplayStep(.substituteUnmapping, range)], effect, substituted: call.kind.name)
    case .protect(let range, let protection):
      self = Self.protect(call, range, protection, effect, model)
    case .move(let from, let to, let keepsSource):
      self = Self.move(call, from, to, keepsSource, effect, model)
    case .advise(let range): self = Self.advise(call, range, model)
    }
  }

  private static func withoutEffect(_ call: RecordedCall, _ model: LayoutModel) -> Translation {
    if call.kind.isOfWholeSpace, let replayed = call.kind.replayed {
      let mapped = model.areas.reduce(UInt64(0)) { $0 + ($1.end - $1.start) }
      guard mapped <= bringLimit else { return .nothing("\(call.kind.name) of more than 4 GiB") }
      return Translation(ReplayCall(replayed, call), wholeSpace, .none)
    }
    if let empty = Self.ofNoPages(call) { return empty }
    if call.copiesSpace { return Translation([ReplayStep(.fork, wholeSpace)], .none) }
    return call.kind.mayMakeThread ? Translation([], .none) : .nothing(call.kind.name)
  }

  /// Advice on nothing at all, which Linux takes: its arguments are checked all the same.
  private static func ofNoPages(_ call: RecordedCall) -> Translation? {
    guard call.kind == .madvise, call.arguments[1] == 0,
      Advice(rawValue: Int32(truncatingIfNeeded: call.arguments[2])) != nil
    else { return nil }
    return madeAgain(call)
  }

  /// A call that looks at no page, as it was recorded; its place is that of its first argument.
  static func madeAgain(_ call: RecordedCall) -> Translation? {
    let page = call.arguments[0] & ~4095
    guard let replayed = call.kind.replayed, page < RecordedArea.spaceEnd else { return nil }
    return Translation(ReplayCall(replayed, call), page..<page + 4096, .none)
  }

  /// `brk`: every change of the break and every look at it is in one order, through the heap's first page.
  private static func moveBreak(
    _ call: RecordedCall, _ model: LayoutModel, _ heapStart: UInt64
  ) -> Translation {
    var programBreak = model.programBreak
    let effect = call.effect(programBreak: &programBreak)
    let result = UInt64(bitPattern: call.result)
    // What the kernel refused for a limit is asked for again as a look.
    let wanted = call.arguments[0] == result ? result : 0
    let first = heapStart & ~4095
    var last = first + 4096
    switch effect {
    case .map(let area): last = max(last, area.end)
    case .unmap(let range): last = max(last, range.upperBound)
    default: break
    }
    return Translation(
      ReplayCall(.brk, LinuxArguments(wanted), result: result), first..<last, effect)
  }

  private static func map(
    _ call: RecordedCall, _ area: RecordedArea, _ effect: LayoutEffect, _ model: LayoutModel,
    _ surroundings: ReplaySurroundings
  ) -> Translation {
    func substitute(_ name: String) -> Translation {
      Translation([ReplayStep(.substituteMapping, area)], effect, substituted: name)
    }
    guard call.kind == .mmap else { return substitute(call.kind.name) }
    var flags = call.arguments[3]
    for (flag, name) in LinuxFlag.mapWithout where flags & flag != 0 {
      return substitute("mmap \(name)")
    }
    if flags & LinuxFlag.mapBringsIn != 0, area.end - area.start > bringLimit {
      return substitute("mmap that brings in more than 4 GiB")
    }
    // Events are missing: the address was given out although something stands there.
    if flags & LinuxFlag.mapFixed == 0, !model.isFree(area.start..<area.end) {
      return substitute("mmap over a mapping")
    }
    if area.backing == .anonymous, flags & LinuxFlag.mapSpecial == 0 {
      let isReplacing = flags & LinuxFlag.mapFixed != 0
      return Translation([ReplayStep(isReplacing ? .mapReplacing : .map, area)], effect)
    }
    var file: Int32 = -1
    if case .file(let number, let offset) = area.backing {
      guard let found = surroundings.file(number, offset, call.arguments[1]) else {
        return substitute("mmap far inside a file")
      }
      file = found
    }
    if flags & LinuxFlag.mapFixed == 0 { flags |= LinuxFlag.mapFixedNoReplace }
    return Translation(
      ReplayCall(
        .mmap,
        LinuxArguments(
          area.start, call.arguments[1], call.arguments[2], flags, .max, call.arguments[5]),
        file: file, result: area.start), area.start..<area.end, effect)
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
    // Key -1 is none; the product has no others.
    let hasKey = call.kind == .pkeyMprotect && call.arguments[3] != .max
    let missing = hasKey ? call.kind.name : nil
    if model.covers(range) { return Translation([step(range)], effect, substituted: missing) }
    // Events are missing: it succeeded over a hole that we see.
    let pieces = model.pieces(of: range).map { step($0.start..<$0.end) }
    return Translation(pieces, effect, substituted: missing ?? "mprotect over a hole")
  }

  /// `remap_file_pages`: pages of a shared file mapping show others of the same file. Its effect is not the call's
  /// alone, so the model learns it from here.
  private static func remapPages(
    _ call: RecordedCall, _ model: LayoutModel, _ surroundings: ReplaySurroundings
  ) -> Translation {
    let start = call.arguments[0] & ~4095
    let (end, overflow) = start.addingReportingOverflow(call.arguments[1] & ~4095)
    guard !overflow, end > start, let area = model.area(at: start), end <= area.end, area.isShared,
      case .file(let number, _) = area.backing, call.arguments[3] < ReplayFiles.sizeLimit >> 12,
      case let offset = call.arguments[3] << 12, offset + (end - start) <= surroundings.size(number)
    else { return .nothing(call.kind.name) }
    let new = RecordedArea(
      start: start, end: end, protection: area.protection, isShared: true,
      backing: .file(number, offset: offset))
    return Translation(ReplayCall(.remapFilePages, call), start..<end, .map(new))
  }

  /// `mremap`, to where it went.
  private static func move(
    _ call: RecordedCall, _ from: Range<UInt64>, _ to: Range<UInt64>, _ keepsSource: Bool,
    _ effect: LayoutEffect, _ model: LayoutModel
  ) -> Translation {
    guard model.area(at: from.lowerBound) != nil else {
      // What was moved is unknown.
      var after = model
      after.apply(effect)
      let pieces = after.pieces(of: to).map { ReplayStep(.substituteMapping, $0) }
      return Translation(pieces, effect, substituted: "mremap of what is not mapped")
    }
    var made = ReplayCall(.mremap, call)
    made.result = to.lowerBound
    if to.lowerBound != from.lowerBound, made.arguments.fourth & LinuxFlag.remapFixed == 0 {
      made.arguments.fourth |= LinuxFlag.remapFixed | LinuxFlag.remapMayMove
      made.arguments.fifth = to.lowerBound
    }
    var translation = Translation(made, to, effect)
    translation.changes =
      from.overlaps(to)
      ? [min(from.lowerBound, to.lowerBound)..<max(from.upperBound, to.upperBound)] : [from, to]
    return translation
  }

  private static func advise(
    _ call: RecordedCall, _ range: Range<UInt64>, _ model: LayoutModel
  ) -> Translation {
    let isDontNeed = call.kind == .madvise && call.arguments[2] == LinuxFlag.adviseDontNeed
    guard model.covers(range) else {
      // Events are missing: it succeeded over a hole that we see.
      let action: ReplayStep.Action? = isDontNeed ? .dontNeed : nil
      let pieces = model.pieces(of: range).compactMap { piece in
        action.map { ReplayStep($0, piece.start..<piece.end) }
      }
      return Translation(pieces, .none, substituted: "\(call.adviceName) over a hole")
    }
    if isDontNeed { return Translation([ReplayStep(.dontNeed, range)], .none) }
    if call.bringsIn || call.kind == .mincore, range.upperBound - range.lowerBound > bringLimit {
      return .nothing("\(call.adviceName) of more than 4 GiB")
    }
    if call.kind == .mincore { return Translation([ReplayStep(.residency, range)], .none) }
    if call.kind == .madvise, Advice(rawValue: Int32(truncatingIfNeeded: call.arguments[2])) == nil
    {
      return .nothing(call.adviceName)
    }
    guard let replayed = call.kind.replayed else { return .nothing(call.kind.name) }
    return Translation(ReplayCall(replayed, call), range, .none)
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
        self.init([step], .map(grown))
        changes = [growth]
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

  /// Whether a successful call copied the address space: what does not share it does.
  var copiesSpace: Bool {
    kind == .fork || kind == .clone && arguments[0] & LinuxFlag.cloneSpace == 0
  }

  /// Whether a call with a range makes its pages be there.
  var bringsIn: Bool {
    switch kind {
    case .mlock, .mlock2: true
    // WILLNEED, POPULATE_READ, POPULATE_WRITE.
    case .madvise: [3, 22, 23].contains(arguments[2])
    default: false
    }
  }

  /// A call with advice, as counts name it.
  var adviceName: String {
    kind == .madvise ? "madvise \(LinuxFlag.adviceName(arguments[2]))" : kind.name
  }
}
