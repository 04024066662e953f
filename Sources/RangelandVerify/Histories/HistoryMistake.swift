// SPDX-License-Identifier: Apache-2.0
//
// Ways of not being atomic: each is made on purpose, for the checker to find.

import CRangeland
import Rangeland

enum HistoryMistake: String, CaseIterable, Sendable {
  /// mprotect changes its first page, and the others some time later.
  case protectHalves
  /// munmap takes its first page, and the others some time later.
  case unmapHalves
  /// A fixed mapping unmaps what it replaces, and maps some time later.
  case fixedUnmapsFirst
  /// No-replace looks, and maps some time later whatever is there then.
  case noReplaceLooksFirst
  /// An address is chosen, and mapped some time later whatever is there then.
  case placementLooksFirst
  /// A move takes its first page along, and the others some time later.
  case moveHalves
  /// A hole in shared memory is filled again, some time later, with what was there.
  case holeFillsAgain
  /// A store is made when its thread makes the next call.
  case storeLate
  /// DONTNEED throws away when its thread makes the next call.
  case adviceLate
  /// A load gives what its thread saw there last.
  case loadStale
  /// A fork copies the upper half of the pages some time after the others.
  case forkHalves
  /// A file becomes shorter in two steps, some time after each other.
  case truncateHalves

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenHistory(self, inner) }
}

/// Threads may use it at the same time.
private final class MistakenHistory: ForwardingSubject {
  private let mistake: HistoryMistake
  private let inner: SpaceSubject
  var forwarded: any VerifySubject { inner }
  /// By thread: the call that is still to be made.
  private let late = PerThread<VerifyCall?>(HistoryState.mostThreads, nil)
  /// By thread and address: what was seen.
  private let seen = PerThread<[UInt64: VerifyOutcome]>(HistoryState.mostThreads, [:])

  init(_ mistake: HistoryMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    self.inner = inner
  }

  private func wait() { for _ in 0..<3 { rl_yield() } }

  func perform(_ call: VerifyCall) -> VerifyOutcome {
    if let waiting = late[call.thread] {
      late[call.thread] = nil
      _ = inner.perform(waiting)
    }
    switch (mistake, call.kind) {
    case (.protectHalves, .mprotect), (.unmapHalves, .munmap):
      guard call.length > 4096 else { break }
      var first = call
      first.length = 4096
      let outcome = inner.perform(first)
      if outcome != .success { return outcome }
      wait()
      var rest = call
      rest.at += 4096
      rest.length -= 4096
      return inner.perform(rest)
    case (.moveHalves, .mremap) where call.length > 4096:
      var first = call
      (first.length, first.newLength) = (4096, 4096)
      let outcome = inner.perform(first)
      if outcome.result < 0 { return outcome }
      wait()
      var rest = call
      rest.at += 4096
      rest.target = VerifyAddress(nil, call.target.offset + 4096)
      (rest.length, rest.newLength) = (call.length - 4096, call.length - 4096)
      _ = inner.perform(rest)
      return outcome
    case (.holeFillsAgain, .madvise) where call.flags == UInt64(Advice.remove.rawValue):
      let seen = inner.perform(VerifyCall(.load, call.address, 8))
      let outcome = inner.perform(call)
      wait()
      _ = inner.perform(
        VerifyCall(.store, call.address, 8, value: UInt64(bitPattern: seen.result)))
      return outcome
    case (.fixedUnmapsFirst, .mmap) where call.isFixed && !call.isNoReplace:
      _ = inner.perform(VerifyCall(.munmap, call.address, call.length))
      wait()
    case (.noReplaceLooksFirst, .mmap) where call.isNoReplace:
      if !inner.mappings(call.at, call.at + call.length).isEmpty {
        return VerifyOutcome(.fileExists)
      }
      wait()
      var forced = call
      forced.flags = call.flags & ~VerifyCall.fixedNoReplace | VerifyCall.fixed
      return inner.perform(forced)
    case (.placementLooksFirst, .mmap) where !call.isFixed:
      let chosen = inner.perform(call)
      if chosen.result < 0 { return chosen }
      let at = VerifyAddress(nil, UInt64(chosen.result))
      _ = inner.perform(VerifyCall(.munmap, at, call.length))
      wait()
      var forced = call
      forced.address = at
      forced.flags |= VerifyCall.fixed
      return inner.perform(forced)
    case (.storeLate, .store):
      // What it will answer is known when the page may be written now.
      let rights = inner.mappings(call.at, call.at + 1).first?.protection ?? 0
      if rights & 2 == 0 { break }
      late[call.thread] = call
      return .success
    case (.adviceLate, .madvise):
      guard let pages = call.pages else { break }
      let shape = Coverage.shape(
        inner.mappings(pages.start, pages.end), pages.start, pages.end)
      if Coverage.needsNoHole(shape) != "ok" { break }
      late[call.thread] = call
      return .success
    case (.truncateHalves, .truncate):
      // Once: another thread may truncate beside.
      let size = inner.fileSizeHere(0)
      guard size > call.value, size >= 4096 else { break }
      var first = call
      first.value = size - 4096
      _ = inner.perform(first)
      wait()
    case (.loadStale, .load):
      if let old = seen[call.thread][call.at] { return old }
      let outcome = inner.perform(call)
      if outcome.signal == 0 { seen[call.thread][call.at] = outcome }
      return outcome
    default: break
    }
    return inner.perform(call)
  }

  func fork() -> (any VerifySubject)? {
    guard mistake == .forkHalves, let first = inner.copy() else { return inner.fork() }
    wait()
    guard let second = inner.copy() else { return nil }
    return TornCopy(first, second)
  }

  /// The listing at a history's end, when all threads wait: what is late is made before.
  func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    for thread in 0..<HistoryState.mostThreads {
      if let call = late[thread] { _ = inner.perform(call) }
      late[thread] = nil
      seen[thread] = [:]
    }
    return inner.mappings(start, end)
  }
}

extension SpaceSubject {
  /// What this side has of a file, in bytes.
  fileprivate func fileSizeHere(_ file: Int) -> UInt64 {
    UInt64(contents(file, isWritten: false).count)
  }
}

/// Two copies of a space, of which one shows the lower half of its window.
private final class TornCopy: ForwardingSubject {
  private let lower: SpaceSubject
  private let upper: SpaceSubject
  var forwarded: any VerifySubject { upper }

  init(_ lower: SpaceSubject, _ upper: SpaceSubject) { (self.lower, self.upper) = (lower, upper) }

  private static var border: UInt64 { 0x6000_0020_0000 }

  func perform(_ call: VerifyCall) -> VerifyOutcome {
    call.at < Self.border ? lower.perform(call) : upper.perform(call)
  }

  func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    func piece(_ mapping: VerifyMapping, _ start: UInt64, _ end: UInt64) -> VerifyMapping {
      var piece = mapping
      piece.start = max(start, mapping.start)
      piece.end = min(end, mapping.end)
      if mapping.file != 0 { piece.offset += piece.start - mapping.start }
      return piece
    }
    return lower.mappings(start, Self.border).map { piece($0, start, Self.border) }
      + upper.mappings(Self.border, end).map { piece($0, Self.border, end) }
  }
}
