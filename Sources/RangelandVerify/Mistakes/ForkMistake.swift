// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about fork.

import Rangeland

enum ForkMistake: String, MistakeFamily {
  /// The parent goes on writing to pages that the child has too.
  case forkLeavesRightToWrite
  /// The child has mappings that say they are not inherited.
  case forkKeepsDontFork
  /// What is to be wiped is not.
  case forkKeepsWiped
  /// A page that was written to is missing in the child.
  case forkLosesPage
  /// Shared memory is copied.
  case forkCopiesShared
  /// The child has no limits.
  case forkForgetsLimits
  /// The child's mappings merge as if their pages were no parent's.
  case forkMerges

  static var kinds: [VerifyCall.Kind] {
    [.fork, .exit, .madvise, .setrlimit, .load, .store, .mmap, .munmap, .mprotect]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenFork(self, inner) }
}

private final class MistakenFork: MistakenSubject {
  private let mistake: ForkMistake
  private var child: SpaceSubject?
  /// Pages that the parent has written to and the child has as they were.
  private var common: Set<UInt64> = []
  private var isSet: Set<UInt64> = []

  init(_ mistake: ForkMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    let outcome = super.perform(call)
    let advice: Advice = mistake == .forkKeepsDontFork ? .dontFork : .wipeOnFork
    switch call.kind {
    case .madvise where outcome == .success && call.flags == UInt64(advice.rawValue):
      isSet.formUnion(pages(call.at, call.length))
    case .store where mistake == .forkLeavesRightToWrite && outcome.succeeded(call):
      let page = call.at & ~4095
      if common.contains(page), let child, !child.presentPages(page, page + 4096).isEmpty {
        _ = child.perform(call)
      }
    default: break
    }
    return outcome
  }

  override func fork() -> (any VerifySubject)? {
    guard let child = inner.copy() else { return nil }
    self.child = child
    common = written
    for mapping in inner.mappings(0, Address.spaceEnd) {
      spoil(child, mapping)
    }
    if mistake == .forkForgetsLimits { child.space.limits = Limits() }
    return child
  }

  private func spoil(_ child: SpaceSubject, _ mapping: VerifyMapping) {
    let length = mapping.end - mapping.start
    // Those outside the windows are long.
    if length > 64 << 20 { return }
    func map(_ sharing: Sharing) {
      _ = try? child.space.map(
        length: length, at: .fixed(mapping.start),
        protection: Protection(rawValue: mapping.protection), sharing: sharing)
    }
    switch mistake {
    case .forkKeepsDontFork:
      if isSet.contains(mapping.start), child.mappings(mapping.start, mapping.end).isEmpty {
        map(mapping.isShared ? .shared : .private)
      }
    case .forkKeepsWiped where isSet.contains(mapping.start):
      for page in inner.presentPages(mapping.start, mapping.end) where written.contains(page) {
        _ = try? child.space.store(UInt8(1), at: page)
      }
    case .forkLosesPage where !mapping.isShared:
      if let page = inner.presentPages(mapping.start, mapping.end).first(where: written.contains) {
        try? child.space.dontNeed(at: page, length: 4096)
      }
    case .forkCopiesShared where mapping.isShared && mapping.protection & 3 == 3:
      map(.private)
    case .forkMerges where !mapping.isShared && mapping.protection & 3 == 3:
      let present = inner.presentPages(mapping.start, mapping.end).filter(written.contains)
      if present.isEmpty { return }
      map(.private)
      let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 8)
      defer { bytes.deallocate() }
      for page in present {
        try? inner.space.read(at: page, into: bytes)
        try? child.space.write(UnsafeRawBufferPointer(bytes), at: page)
      }
    default: break
    }
  }
}
