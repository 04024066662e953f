// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about mmap.

import Rangeland

enum MapMistake: String, MistakeFamily {
  /// An unaligned hint is rounded up.
  case hintRoundedUp
  /// A hint is ignored.
  case hintIgnored
  /// A fixed address is checked for its alignment before its end.
  case fixedErrnoOrder
  /// No-replace looks at the first page only.
  case noReplaceFirstPage
  /// No-replace takes a neighbour that touches for an overlap.
  case noReplaceTouching
  /// Placement leaves a page free below the mapping above: a guard that is off by one.
  case guardPage
  /// Lengths of whole huge pages are not aligned to them.
  case noHugeAlignment
  /// Replaced pages stay counted in the size.
  case replacedStaysCounted
  /// A new mapping shows what was mapped there before.
  case contentsLeak

  static var kinds: [VerifyCall.Kind] {
    [.mmap, .munmap, .mprotect, .load, .store]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenMap(self, inner) }
}

private final class MistakenMap: MistakenSubject {
  private let mistake: MapMistake
  /// The last word stored in a page that is gone.
  private var ghosts: [UInt64: UInt64] = [:]
  private var extraPages = 0

  init(_ mistake: MapMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    if call.kind == .mmap { return map(call) }
    if mistake == .contentsLeak, call.kind == .munmap, call.at % 4096 == 0 {
      for page in pages(call.at, call.length) where written.contains(page) {
        let word = inner.perform(VerifyCall(.load, VerifyAddress(nil, page), 8))
        if word.signal == 0 { ghosts[page] = UInt64(bitPattern: word.result) }
      }
    }
    return super.perform(call)
  }

  private func map(_ call: VerifyCall) -> VerifyOutcome {
    var call = call
    let isPlaced = !call.isFixed
    let wasMapped = inner.mappings(call.at, call.at &+ max(1, min(call.length, 64 << 20)))
    switch mistake {
    case .hintRoundedUp where isPlaced && call.at < 1 << 46: call.at = (call.at + 4095) & ~4095
    case .hintIgnored where isPlaced: call.at = 0
    case .fixedErrnoOrder where call.isFixed && call.at % 4096 != 0 && call.length != 0:
      return VerifyOutcome(.invalidArgument)
    case .noReplaceFirstPage
    where call.isNoReplace && inner.mappings(call.at, call.at &+ 1).isEmpty:
      call.flags = call.flags & ~VerifyCall.fixedNoReplace | VerifyCall.fixed
    case .noReplaceTouching where call.isNoReplace && call.at % 4096 == 0 && isOrdinary(call):
      if !inner.mappings(call.at - 1, call.at + call.length + 1).isEmpty {
        return VerifyOutcome(.fileExists)
      }
    case .guardPage where isPlaced && call.at == 0 && call.length < 1 << 40:
      return placeLower(call)
    case .noHugeAlignment
    where isPlaced && call.at == 0 && call.length % (2 << 20) == 0 && call.length < 1 << 40:
      return placeUnaligned(call)
    default: break
    }
    let result = super.perform(call)
    guard result.result >= 0 else { return result }
    let start = UInt64(result.result)
    let end = start + (call.length + 4095) / 4096 * 4096
    if mistake == .replacedStaysCounted, call.isFixed {
      for mapping in wasMapped {
        extraPages += Int(min(end, mapping.end) - max(start, mapping.start)) / 4096
      }
    }
    if mistake == .contentsLeak, call.protection == 3, call.flags & VerifyCall.shared == 0 {
      for page in pages(start, call.length) {
        guard let value = ghosts[page] else { continue }
        _ = inner.perform(VerifyCall(.store, VerifyAddress(nil, page), 8, value: value))
      }
    }
    return result
  }

  /// One page more is mapped, and its highest given back.
  private func placeLower(_ call: VerifyCall) -> VerifyOutcome {
    var longer = call
    longer.length = (call.length + 4095) / 4096 * 4096 + 4096
    let result = inner.perform(longer)
    if result.result < 0 || call.length == 0 { return result }
    let top = UInt64(result.result) + longer.length - 4096
    _ = inner.perform(VerifyCall(.munmap, VerifyAddress(nil, top), 4096))
    return result
  }

  /// One page more is mapped, which is no multiple of a huge page, and its lowest given back.
  private func placeUnaligned(_ call: VerifyCall) -> VerifyOutcome {
    var longer = call
    longer.length += 4096
    let result = inner.perform(longer)
    if result.result < 0 || call.length == 0 { return result }
    _ = inner.perform(
      VerifyCall(.munmap, VerifyAddress(nil, UInt64(result.result)), 4096))
    return VerifyOutcome(result: result.result + 4096)
  }

  override func sizes() -> VerifySizes {
    var sizes = super.sizes()
    sizes.virtual += extraPages
    return sizes
  }
}
