// SPDX-License-Identifier: Apache-2.0
//
// A recorded call that a replay makes through the product's Linux face.

import Rangeland

/// A system call with its arguments as they were recorded, but for two: where a mapping goes is told to it, so that it
/// goes where it went, and a descriptor is that of the file that stands for the recorded one.
struct ReplayCall: Sendable {
  var call: LinuxCall
  var arguments: LinuxArguments
  /// The number of the file whose descriptor is the fifth argument; -1 without one.
  var file: Int32 = -1
  /// What a success returns.
  var result: UInt64 = 0

  init(_ call: LinuxCall, _ recorded: RecordedCall) {
    self.call = call
    let words = recorded.arguments
    arguments = LinuxArguments(words[0], words[1], words[2], words[3], words[4], words[5])
  }

  init(_ call: LinuxCall, _ arguments: LinuxArguments, file: Int32 = -1, result: UInt64 = 0) {
    self.call = call
    self.arguments = arguments
    self.file = file
    self.result = result
  }

  /// The call as reports of locks and costs name it.
  var operation: OperationKind {
    switch call {
    case .mmap: .map
    case .munmap: .unmap
    case .mprotect: .protect
    case .mremap: .remap
    case .brk: .setBreak
    case .madvise: Self.operation(advice: arguments.third)
    case .mlock, .mlock2, .munlock, .mlockall, .munlockall: .lockMemory
    case .msync: .synchronize
    case .mincore: .residency
    case .mseal: .seal
    case .remapFilePages: .remapPages
    case .ftruncate: .truncate
    case .mbind, .setMempolicy, .getMempolicy: .setPolicy
    case .prctl: .configure
    case .processVMReadv, .processVMWritev: .pin
    }
  }

  private static func operation(advice: UInt64) -> OperationKind {
    switch advice {
    case LinuxFlag.adviseDontNeed: .dontNeed
    // Advice that is an attribute of mappings.
    case 0...2, 10...19: .setAdvice
    default: .advise
    }
  }
}

extension CallKind {
  /// The call of the product's that takes the same arguments, for kinds that are made as they were recorded.
  var replayed: LinuxCall? {
    switch self {
    case .madvise: .madvise
    case .mlock: .mlock
    case .mlock2: .mlock2
    case .munlock: .munlock
    case .mlockall: .mlockall
    case .munlockall: .munlockall
    case .msync: .msync
    case .mseal: .mseal
    default: nil
    }
  }

  /// Whether it works on all mappings, whatever its arguments.
  var isOfWholeSpace: Bool { self == .mlockall || self == .munlockall }
}
