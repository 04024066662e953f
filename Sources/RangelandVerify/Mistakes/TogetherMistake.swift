// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong when calls run at the same time, and never otherwise.

import Rangeland
import Synchronization

enum TogetherMistake: String, MistakeFamily {
  /// DONTNEED does nothing while another call runs.
  case adviceLost
  /// munmap leaves its last page while another call runs.
  case unmapTorn
  /// mprotect changes its first page only while another call runs.
  case protectTorn
  /// A store that meets another call is lost.
  case storeLost
  /// Sizes that were added up at the same time lose a page.
  case sizesRace
  /// No-replace does not see a mapping while another call runs, and replaces it.
  case noReplaceRaces

  /// All that several threads may make.
  static var kinds: [VerifyCall.Kind] {
    VerifyCall.Kind.ordinary.filter {
      ![.fork, .exit, .mseal].contains($0) && !$0.isTransfer
        && !VerifyCall.Kind.ofFiles.contains($0)
    }
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenTogether(self, inner) }
}

/// Threads may use it at the same time.
private final class MistakenTogether: ForwardingSubject {
  private let mistake: TogetherMistake
  private let inner: SpaceSubject
  var forwarded: any VerifySubject { inner }
  private let running = Atomic<Int>(0)
  private let lostPages = Atomic<Int>(0)

  init(_ mistake: TogetherMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    self.inner = inner
  }

  func perform(_ call: VerifyCall) -> VerifyOutcome {
    // Only a thread that overlaps another sees more than itself.
    let isAlone = running.add(1, ordering: .relaxed).newValue == 1
    defer { running.subtract(1, ordering: .relaxed) }
    if isAlone { return inner.perform(call) }
    var call = call
    switch (mistake, call.kind) {
    case (.adviceLost, .madvise):
      guard let pages = call.pages, call.length < 1 << 30 else { break }
      let shape = Coverage.shape(inner.mappings(pages.start, pages.end), pages.start, pages.end)
      return Coverage.needsNoHole(shape) == "ok" ? .success : VerifyOutcome(.noMemory)
    case (.unmapTorn, .munmap) where call.length > 4096 && call.length < 1 << 30:
      call.length -= 4096
    case (.protectTorn, .mprotect) where call.length > 4096 && call.length < 1 << 30:
      let shape = call.pages.map {
        Coverage.shape(inner.mappings($0.start, $0.end), $0.start, $0.end)
      }
      if let shape, Coverage.needsNoHole(shape) == "ok" { call.length = 4096 }
    case (.storeLost, .store):
      let seen = inner.perform(VerifyCall(.load, call.address, call.length))
      if seen.signal == 0,
        inner.mappings(call.at, call.at + 1).first.map({ $0.protection & 2 != 0 }) == true
      {
        return .success
      }
    case (.sizesRace, .mmap): lostPages.add(1, ordering: .relaxed)
    case (.noReplaceRaces, .mmap) where call.isNoReplace && call.length < 1 << 30:
      call.flags = call.flags & ~VerifyCall.fixedNoReplace | VerifyCall.fixed
    default: break
    }
    return inner.perform(call)
  }

  func sizes() -> VerifySizes {
    var sizes = inner.sizes()
    sizes.virtual -= lostPages.load(ordering: .relaxed)
    return sizes
  }
}
