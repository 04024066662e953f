// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about mremap.

import Rangeland

enum RemapMistake: String, MistakeFamily {
  /// The old place is still mapped after a move.
  case remapLeavesOldPlace
  /// The new place is empty.
  case remapLosesContent
  /// A source that is to be kept goes.
  case remapUnmapsKeptSource
  /// What is kept still has its pages.
  case remapKeptSourceHasPages
  /// A shared mapping that moved begins at the start of its object.
  case remapForgetsOffset
  /// Shrinking stops at the end of the first mapping.
  case remapShrinksFirstOnly
  /// A move of several stops after the first.
  case remapMovesFirstOnly
  /// A move of several is rolled back at a hole.
  case remapRefusesHoles
  /// What is mapped is looked at before the arguments.
  case remapErrnoOrder
  /// A second mapping of shared memory has pages of its own.
  case remapCopiesShared
  /// A mapping that may not move moves.
  case remapMovesWithoutLeave
  /// Growing does not count.
  case remapGrowthNotCounted
  /// A mapping that grows by moving is not aligned to huge pages.
  case remapNeverAligns

  static var kinds: [VerifyCall.Kind] {
    [.mremap, .mmap, .munmap, .mprotect, .load, .store]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenRemap(self, inner) }
}

private final class MistakenRemap: MistakenSubject {
  private let mistake: RemapMistake
  /// Where shared mappings that moved begin.
  private var moved: Set<UInt64> = []
  private var uncounted = 0

  init(_ mistake: RemapMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    guard call.kind == .mremap else { return super.perform(call) }
    var call = call
    let isFixed = call.flags & RemapCall.fixed != 0
    let keeps = call.flags & RemapCall.keepsSource != 0
    let length = (call.length &+ 4095) & ~4095
    let newLength = (call.newLength &+ 4095) & ~4095
    let isSane = isOrdinary(call) && call.at % 4096 == 0 && newLength < 1 << 30
    let sources = isSane ? inner.mappings(call.at, call.at + max(length, 4096)) : []
    let first = sources.first { $0.start <= call.at }
    switch mistake {
    case .remapErrnoOrder
    where call.at % 4096 == 0 && call.at < 1 << 46
      && inner.mappings(call.at, call.at + 1).isEmpty:
      return VerifyOutcome(.badAddress)
    case .remapShrinksFirstOnly where !isFixed && !keeps && newLength < length:
      if let first, first.end > call.at + newLength, first.end < call.at + length {
        call.length = first.end - call.at
      }
    case .remapMovesFirstOnly where isFixed && length == newLength:
      if let first, first.end < call.at + length {
        call.length = first.end - call.at
        call.newLength = call.length
      }
    case .remapRefusesHoles where isFixed && length == newLength && isSane:
      if Coverage.shape(sources, call.at, call.at + length) == "gaps" {
        return VerifyOutcome(.badAddress)
      }
    case .remapMovesWithoutLeave where call.flags == 0 && newLength > length:
      call.flags = RemapCall.mayMove
    case .remapNeverAligns
    where call.flags == RemapCall.mayMove && newLength > length && newLength % (2 << 20) == 0:
      return growUnaligned(call, newLength)
    default: break
    }
    let contents = length == 0 || mistake == .remapKeptSourceHasPages ? words(sources) : [:]
    let result = super.perform(call)
    guard result.result >= 0, isSane || length == 0 else { return result }
    spoil(call, result, length, newLength, sources, contents)
    return result
  }

  private func spoil(
    _ call: VerifyCall, _ result: VerifyOutcome, _ length: UInt64, _ newLength: UInt64,
    _ sources: [VerifyMapping], _ contents: [UInt64: UInt64]
  ) {
    let address = UInt64(result.result)
    let keeps = call.flags & RemapCall.keepsSource != 0
    let hasMoved = address != call.at
    switch mistake {
    case .remapLeavesOldPlace where hasMoved && !keeps && length > 0:
      for mapping in sources { map(mapping, within: call.at, call.at + length) }
    case .remapLosesContent where hasMoved:
      _ = inner.perform(VerifyCall(.madvise, VerifyAddress(nil, address), newLength, flags: 4))
    case .remapUnmapsKeptSource where keeps:
      _ = inner.perform(VerifyCall(.munmap, call.address, length))
    case .remapKeptSourceHasPages where keeps:
      for (page, word) in contents {
        _ = inner.perform(VerifyCall(.store, VerifyAddress(nil, page), 8, value: word))
      }
    case .remapForgetsOffset where hasMoved: moved.insert(address)
    case .remapCopiesShared where length == 0:
      guard let mapping = inner.mappings(address, address + 1).first else { return }
      _ = inner.perform(
        VerifyCall(
          .mmap, VerifyAddress(nil, address), newLength, protection: UInt64(mapping.protection),
          flags: VerifyCall.shared | VerifyCall.anonymous | VerifyCall.fixed))
    case .remapGrowthNotCounted where newLength > length && length > 0:
      uncounted += Int(newLength - length) / 4096
    default: break
    }
  }

  /// The first words of the private pages that were written to.
  private func words(_ mappings: [VerifyMapping]) -> [UInt64: UInt64] {
    var result: [UInt64: UInt64] = [:]
    for mapping in mappings where !mapping.isShared && mapping.protection & 3 == 3 {
      for page in pages(mapping.start, mapping.end - mapping.start) where written.contains(page) {
        let word = inner.perform(VerifyCall(.load, VerifyAddress(nil, page), 8))
        result[page] = UInt64(bitPattern: word.result)
      }
    }
    return result
  }

  private func map(_ mapping: VerifyMapping, within start: UInt64, _ end: UInt64) {
    let from = max(mapping.start, start)
    _ = inner.perform(
      VerifyCall(
        .mmap, VerifyAddress(nil, from), min(mapping.end, end) - from,
        protection: UInt64(mapping.protection),
        flags: VerifyCall.private | VerifyCall.anonymous | VerifyCall.fixedNoReplace))
  }

  /// Grows to a page more, which is no multiple of a huge page, and gives that back.
  private func growUnaligned(_ call: VerifyCall, _ newLength: UInt64) -> VerifyOutcome {
    var longer = call
    longer.newLength = newLength + 4096
    let result = super.perform(longer)
    if result.result >= 0 {
      let end = UInt64(result.result) + newLength
      _ = inner.perform(VerifyCall(.munmap, VerifyAddress(nil, end), 4096))
    }
    return result
  }

  override func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    var result = super.mappings(start, end)
    for i in result.indices where result[i].isShared && moved.contains(result[i].start) {
      result[i].offset = 0
    }
    return result
  }

  override func sizes() -> VerifySizes {
    var sizes = super.sizes()
    sizes.virtual -= uncounted
    return sizes
  }
}
