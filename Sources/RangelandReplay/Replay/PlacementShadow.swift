// SPDX-License-Identifier: Apache-2.0
//
// A space that does what a recorded program did to its mappings, one call after the other in the order of the plan, and
// is asked where `.linux` would place what the program left to the kernel.
//
// Guarantee: after each call the space has the recorded mappings, whatever was answered: one wrong address does not make
//   the next one wrong.
// Mechanism: the recorded call is made as the program made it. If the address is not the recorded one the call is taken
//   back, and made where it went. Pages do not matter: nothing is touched but what makes a stack grow.
// Linux: mm/mmap.c `__get_unmapped_area`; where it begins (`mmap_base`) is random, and is concluded.

import Rangeland
import SystemPackage

/// For one thread.
final class PlacementShadow {
  private let space: AddressSpace
  private let files: ReplayFiles
  private(set) var agreement = PlacementAgreement()

  private static let hugePage: UInt64 = 2 << 20
  /// The part of the space where the kernel's `mmap_base` is, wherever chance puts it.
  private static let upperPart: UInt64 = 0x7e00_0000_0000

  init(_ recording: Recording, _ plan: ReplayPlan) throws(ReplayError) {
    files = try ReplayFiles(sizes: plan.fileSizes)
    let base = Self.base(of: recording)
    agreement.base = base
    do {
      space = try AddressSpace(placedBelow: base)
    } catch {
      throw .noMemory
    }
    for step in plan.setup { follow(step, step.action == .call ? plan.calls[Int(step.call)] : nil) }
  }

  /// The kernel places the program's interpreter first, as high as it may. Of what is above the stack nothing was placed
  /// by that rule.
  private static func base(of recording: Recording) -> UInt64? {
    let stack =
      recording.initialLayout.last { $0.backing == .stack }?.start ?? RecordedArea.spaceEnd
    let atStart = recording.initialLayout.lazy
      .filter { $0.start >= upperPart && $0.start < stack && $0.backing != .stack }.map(\.end)
    let placed = recording.calls.lazy.filter { $0.kind == .mmap && $0.errno == nil && !$0.isFixed }
      .map { (UInt64(bitPattern: $0.result) &+ $0.arguments[1] &+ 4095) & ~4095 }
      .filter { $0 >= upperPart && $0 <= stack }
    return [atStart.max(), placed.max()].compactMap { $0 }.max()
  }

  // MARK: the history

  /// An event that has its place in the history.
  ///
  /// - Parameter isBeside: whether a call of another thread that changes mappings was under way too.
  func place(_ event: PlannerEvent, _ translation: Translation, isBeside: () -> Bool) {
    if case .call(let call) = event, translation.substituted == nil, let request = call.request {
      let answer = ask(call, translation)
      var count = agreement.counts[request] ?? .init()
      count.asked += 1
      defer { agreement.counts[request] = count }
      let recorded = UInt64(bitPattern: call.result)
      if answer == recorded {
        count.agreed += 1
        return
      }
      if let answer { takeBack(call, answer) }
      if isAlignedByFileSystem(call, recorded) {
        count.agreed += 1
        agreement.alignedByFileSystem += 1
      } else {
        note(call, answer, isBeside: isBeside())
      }
    }
    for step in translation.steps {
      // A stack grows where it was touched.
      if step.action == .fault && translation.changes == nil { continue }
      follow(step, translation.call)
    }
  }

  /// Makes the call as the program did; nil = it was refused. Nothing is brought in.
  private func ask(_ call: RecordedCall, _ translation: Translation) -> UInt64? {
    let words = call.arguments
    var arguments = LinuxArguments(words[0], words[1], words[2], words[3], words[4], words[5])
    if call.kind == .mmap {
      arguments.fourth &= ~LinuxFlag.mapBringsIn
      if let file = translation.call?.file, file >= 0 { arguments.fifth = descriptor(file) }
    }
    let result = space.systemCall(call.kind == .mmap ? .mmap : .mremap, arguments)
    return (-4095..<0).contains(result) ? nil : UInt64(UInt(bitPattern: result))
  }

  /// Undoes what was asked.
  private func takeBack(_ call: RecordedCall, _ answer: UInt64) {
    if call.kind == .mmap {
      _ = space.systemCall(.munmap, LinuxArguments(answer, call.arguments[1]))
      return
    }
    let (start, length, newLength) = (call.arguments[0], call.arguments[1], call.arguments[2])
    _ = space.systemCall(.mremap, LinuxArguments(answer, newLength, length))
    if answer == start { return }
    let flags = LinuxFlag.remapMayMove | LinuxFlag.remapFixed
    _ = space.systemCall(.mremap, LinuxArguments(answer, length, length, flags, start))
  }

  /// Does what the program did, to where it went.
  private func follow(_ step: ReplayStep, _ call: ReplayCall?) {
    var step = step
    guard step.expected == .success else { return }
    var made = call ?? ReplayCall(.munmap, LinuxArguments(0))
    switch step.action {
    case .dontNeed, .residency, .fork, .spawn: return
    case .call:
      switch made.call {
      case .mmap: made.arguments.fourth &= ~LinuxFlag.mapBringsIn
      case .munmap, .mremap, .brk, .remapFilePages: break
      default: return
      }
      step.call = 0
    case .map, .mapReplacing, .unmap, .protect, .fault, .insertSpecial, .setHeap,
      .substituteMapping,
      .substituteUnmapping:
      break
    }
    let outcome = withUnsafePointer(to: made) { step.perform(on: space, $0, files) }
    if outcome != .success { agreement.unfollowed += 1 }
  }

  private func descriptor(_ file: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: files.descriptors[Int(file)]))
  }

  // MARK: what differs

  /// Whether the file system's own rule explains the address (Linux `thp_get_unmapped_area`): as much more as a huge page
  /// is placed, and the mapping goes to where addresses and offsets are alike modulo a huge page.
  private func isAlignedByFileSystem(_ call: RecordedCall, _ recorded: UInt64) -> Bool {
    guard call.kind == .mmap, call.arguments[3] & LinuxFlag.mapAnonymous == 0,
      call.arguments[0] == 0
    else { return false }
    let (length, offset) = ((call.arguments[1] + 4095) & ~4095, call.arguments[5])
    let aligned = (offset + Self.hugePage - 1) & ~(Self.hugePage - 1)
    guard offset + length >= aligned + Self.hugePage,
      // Shared: no alignment of this space's own.
      let padded = try? space.map(
        length: length + Self.hugePage, protection: [], sharing: .shared)
    else { return false }
    _ = try? space.unmap(at: padded, length: length + Self.hugePage)
    let rest = (offset &- padded) & (Self.hugePage - 1)
    return recorded == padded + (rest == 0 ? Self.hugePage : rest)
  }

  private func note(_ call: RecordedCall, _ answer: UInt64?, isBeside: Bool) {
    let recorded = UInt64(bitPattern: call.result)
    let reason: PlacementAgreement.Reason =
      isBeside ? .beside : answer.map { $0 > recorded } ?? false ? .passedGap : .otherGap
    agreement.reasons[reason, default: 0] += 1
    if agreement.examples.count == PlacementAgreement.exampleLimit { return }
    let length = call.kind == .mmap ? call.arguments[1] : call.arguments[2]
    agreement.examples.append(
      "\(call.kind.name) of \(length) bytes at \(call.enter) ns: the kernel answered \(hex(recorded)), .linux "
        + (answer.map { hex($0) } ?? "an error"))
  }
}

extension RecordedCall {
  /// Whether a mapping was told where to go.
  fileprivate var isFixed: Bool {
    arguments[3] & (LinuxFlag.mapFixed | LinuxFlag.mapFixedNoReplace) != 0
  }

  /// What it left to the kernel; nil if it did not.
  fileprivate var request: PlacementAgreement.Request? {
    guard errno == nil else { return nil }
    switch kind {
    case .mmap:
      if isFixed { return nil }
      if arguments[3] & LinuxFlag.map32Bit != 0 { return .below2GiB }
      return arguments[0] == 0 ? .anywhere : .hint
    case .mremap:
      let flags = arguments[3] & (LinuxFlag.remapFixed | LinuxFlag.remapDontUnmap)
      let grows = (arguments[2] + 4095) & ~4095 > (arguments[1] + 4095) & ~4095
      return arguments[3] & LinuxFlag.remapMayMove != 0 && flags == 0 && arguments[1] != 0 && grows
        ? .move : nil
    default: return nil
    }
  }

  /// Whether it made or took away mappings.
  var changesLayout: Bool {
    guard errno == nil else { return false }
    switch kind {
    case .mmap, .munmap, .mremap, .brk: return true
    default: return false
    }
  }
}
