// SPDX-License-Identifier: Apache-2.0
//
// What a recorded call did to the layout, concluded from its arguments and its result.
//
// Used by summaries, by the inference of the initial layout, and by a replay for calls that it
// applies by their effect.

/// The effect of one successful call.
public enum LayoutEffect: Equatable, Sendable {
  /// Nothing changed in the layout (the call failed, asked, or concerned other things).
  case none
  /// A mapping was made; what stood there is gone.
  case map(RecordedArea)
  case unmap(Range<UInt64>)
  case protect(Range<UInt64>, Protection)
  /// A mapping was resized or moved (`mremap`). The new range takes the attributes of the old;
  /// the rest of the old range is gone unless `keepsSource`.
  case move(from: Range<UInt64>, to: Range<UInt64>, keepsSource: Bool)
  /// Pages were dropped or advised about; the mappings stand.
  case advise(Range<UInt64>)
}

/// The kernel's constants that decide effects (x86-64 `asm-generic/mman*.h`).
enum LinuxFlag {
  static let mapShared: UInt64 = 0x01
  static let mapSharedValidate: UInt64 = 0x03
  static let mapFixed: UInt64 = 0x10
  static let mapAnonymous: UInt64 = 0x20
  static let map32Bit: UInt64 = 0x40
  static let mapGrowsDown: UInt64 = 0x100
  static let mapStack: UInt64 = 0x2_0000
  static let mapSync: UInt64 = 0x8_0000
  static let mapFixedNoReplace: UInt64 = 0x10_0000
  /// Flags that the product's own mappings do not have, and their names.
  static let mapWithout: [(flag: UInt64, name: String)] = [
    (0x8, "MAP_DROPPABLE"), (0x40000, "MAP_HUGETLB"),
  ]
  /// Flags that do more than map: MAP_GROWSDOWN, MAP_LOCKED, MAP_POPULATE.
  static let mapSpecial: UInt64 = 0x100 | mapBringsIn
  /// MAP_LOCKED, MAP_POPULATE.
  static let mapBringsIn: UInt64 = 0x2000 | 0x8000
  static let adviseDontNeed: UInt64 = 4
  static let remapMayMove: UInt64 = 1
  static let remapFixed: UInt64 = 2
  static let remapDontUnmap: UInt64 = 4
  static let cloneSpace: UInt64 = 0x100
  static let cloneThread: UInt64 = 0x1_0000

  /// An advice of `madvise` as the manual page spells it, without its prefix.
  static func adviceName(_ advice: UInt64) -> String {
    adviceNames[advice] ?? String(advice)
  }

  private static let adviceNames: [UInt64: String] = [
    0: "NORMAL", 1: "RANDOM", 2: "SEQUENTIAL", 3: "WILLNEED", 4: "DONTNEED", 8: "FREE",
    9: "REMOVE", 10: "DONTFORK", 11: "DOFORK", 12: "MERGEABLE", 13: "UNMERGEABLE",
    14: "HUGEPAGE", 15: "NOHUGEPAGE", 16: "DONTDUMP", 17: "DODUMP", 18: "WIPEONFORK",
    19: "KEEPONFORK", 20: "COLD", 21: "PAGEOUT", 22: "POPULATE_READ", 23: "POPULATE_WRITE",
    24: "DONTNEED_LOCKED", 25: "COLLAPSE", 102: "GUARD_INSTALL", 103: "GUARD_REMOVE",
  ]
}

extension RecordedCall {
  /// The range from `start` over `length` bytes, widened to whole pages; nil if it wraps around or
  /// holds nothing.
  private static func pages(_ start: UInt64, _ length: UInt64) -> Range<UInt64>? {
    let first = start & ~4095
    let (end, overflow) = start.addingReportingOverflow(length)
    guard !overflow, length > 0, end <= RecordedArea.spaceEnd else { return nil }
    return first..<((end + 4095) & ~4095)
  }

  /// What this call did.
  ///
  /// - Parameter programBreak: where the break stood before, nil before the first `brk`; moved.
  ///   Pass the same variable for all calls, in the order in which they had effect.
  public func effect(programBreak: inout UInt64?) -> LayoutEffect {
    guard errno == nil else { return .none }
    let address = UInt64(bitPattern: result)
    switch kind {
    case .mmap:
      guard let range = Self.pages(address, arguments[1]) else { return .none }
      let flags = arguments[3]
      return .map(
        RecordedArea(
          start: range.lowerBound, end: range.upperBound,
          protection: Protection(argument: arguments[2]),
          isShared: flags & LinuxFlag.mapShared != 0,
          backing: flags & LinuxFlag.mapAnonymous != 0
            ? .anonymous : .file(file, offset: arguments[5])))
    case .munmap:
      return Self.pages(arguments[0], arguments[1]).map { .unmap($0) } ?? .none
    case .mprotect, .pkeyMprotect:
      return Self.pages(arguments[0], arguments[1])
        .map { .protect($0, Protection(argument: arguments[2])) } ?? .none
    case .mremap:
      guard let target = Self.pages(address, arguments[2]) else { return .none }
      let source = Self.pages(arguments[0], arguments[1])
      return .move(
        from: source ?? (arguments[0] & ~4095)..<(arguments[0] & ~4095), to: target,
        keepsSource: source == nil || arguments[3] & LinuxFlag.remapDontUnmap != 0)
    case .brk: return breakEffect(address, &programBreak)
    case .madvise, .mlock, .mlock2, .munlock, .msync, .mincore, .mseal:
      return Self.pages(arguments[0], arguments[1]).map { .advise($0) } ?? .none
    default: return .none
    }
  }

  private func breakEffect(_ new: UInt64, _ programBreak: inout UInt64?) -> LayoutEffect {
    defer { programBreak = new }
    guard let old = programBreak else { return .none }
    let from = (old + 4095) & ~4095
    let to = (new + 4095) & ~4095
    if to > from {
      return .map(
        RecordedArea(start: from, end: to, protection: [.read, .write], backing: .heap))
    }
    return to < from ? .unmap(to..<from) : .none
  }

  /// The moment at which the call may be taken to have had its effect, so that in the order of
  /// these moments an address is never given out before it is free.
  ///
  /// A call that takes something away may do so as it begins, and another thread may get the
  /// address before the call's exit is stamped; one that makes a mapping has done so at its exit.
  public var effectTime: UInt64 { kind == .munmap || kind == .brk ? enter : exit }

  /// Whether this call changed mappings or what stands behind them: a successful `mmap`, `munmap`,
  /// `mprotect`, `mremap`, `brk` (that moved), or `madvise` that drops pages.
  public var changesMappings: Bool {
    guard errno == nil else { return false }
    switch kind {
    case .mmap, .munmap, .mprotect, .pkeyMprotect, .mremap: return true
    case .brk: return arguments[0] != 0
    // DONTNEED, FREE, REMOVE, DONTNEED_LOCKED.
    case .madvise: return [4, 8, 9, 24].contains(arguments[2])
    default: return false
    }
  }
}
