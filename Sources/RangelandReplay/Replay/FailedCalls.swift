// SPDX-License-Identifier: Apache-2.0
//
// What a recorded call that failed becomes in a replay.
//
// It is made again where the product has it and fails for the same reason, whatever else the program has; limits, files
// and permissions that the product does not know are not.

import Glibc
import Rangeland

extension Translation {
  static func failed(
    _ call: RecordedCall, _ errno: Int32, _ model: LayoutModel, _ surroundings: ReplaySurroundings
  ) -> Translation {
    // They fail on other things than mappings.
    if [.execve, .fork, .vfork, .clone, .clone3, .userfaultfd].contains(call.kind) {
      return Translation([], .none)
    }
    return refusedForArguments(call, errno) ?? refusedForFile(call, errno, surroundings)
      ?? refusedForHole(call, errno, model) ?? .nothing("failed \(call.kind.name)")
  }

  /// What no mapping would have made right: an address inside a page.
  private static func refusedForArguments(_ call: RecordedCall, _ errno: Int32) -> Translation? {
    guard errno == EINVAL, [.madvise, .msync, .mseal].contains(call.kind),
      call.arguments[0] % 4096 != 0, var made = madeAgain(call)
    else { return nil }
    made.steps[0].expected = .failure(errno)
    return made
  }

  /// `MAP_SYNC`, which no file has that is not memory itself: any file stands for the one that was asked.
  private static func refusedForFile(
    _ call: RecordedCall, _ errno: Int32, _ surroundings: ReplaySurroundings
  ) -> Translation? {
    guard errno == EOPNOTSUPP, call.asksForSynchronousFile, call.arguments[0] % 4096 == 0,
      call.arguments[0] < RecordedArea.spaceEnd,
      let file = surroundings.file(nil, call.arguments[5], call.arguments[1])
    else { return nil }
    let words = call.arguments
    let made = ReplayCall(
      .mmap, LinuxArguments(words[0], words[1], words[2], words[3], .max, words[5]), file: file)
    var translation = Translation(made, words[0]..<words[0] + 4096, .none)
    translation.steps[0].expected = .failure(errno)
    return translation
  }

  /// `ENOMEM` for a hole that we see, too.
  private static func refusedForHole(
    _ call: RecordedCall, _ errno: Int32, _ model: LayoutModel
  ) -> Translation? {
    let action: ReplayStep.Action
    switch call.kind {
    case .mprotect: action = .protect
    case .madvise where call.arguments[2] == LinuxFlag.adviseDontNeed: action = .dontNeed
    default: return nil
    }
    let start = call.arguments[0]
    let (end, overflow) = start.addingReportingOverflow(call.arguments[1])
    guard errno == ENOMEM, start % 4096 == 0, !overflow, end > start, end <= RecordedArea.spaceEnd
    else { return nil }
    let range = start..<((end + 4095) & ~4095)
    guard let hole = model.firstHole(in: range) else { return nil }
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
}

extension RecordedCall {
  /// Whether it is an `mmap` of a file with `MAP_SYNC`.
  var asksForSynchronousFile: Bool {
    kind == .mmap && arguments[3] & LinuxFlag.mapAnonymous == 0
      && arguments[3] & LinuxFlag.mapSharedValidate == LinuxFlag.mapSharedValidate
      && arguments[3] & LinuxFlag.mapSync != 0
  }
}
