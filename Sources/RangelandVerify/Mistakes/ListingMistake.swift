// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about where mappings begin and end.

import Rangeland

enum ListingMistake: String, MistakeFamily {
  /// Mappings that differ in their anonymous identity are one.
  case mergesAcrossIdentity
  /// Mappings that were never written and differ in the commit charge are one.
  case mergesAcrossCharge
  /// A new mapping is not joined with the one above it.
  case noMergeRight
  /// Shared mappings that touch are one, as if they had one object.
  case mergesShared
  /// The offset of a piece of shared memory does not follow its address.
  case offsetStays
  /// What is resident of shared memory is counted once, and never out.
  case sharedStaysCounted
  /// A mapping that is split counts as one.
  case splitNotCounted

  static var kinds: [VerifyCall.Kind] {
    [.mmap, .munmap, .mprotect, .mremap, .load, .store]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenListing(self, inner) }
}

private final class MistakenListing: MistakenSubject {
  private let mistake: ListingMistake
  /// Ends of new mappings that must not look joined.
  private var borders: Set<UInt64> = []
  private var mostShared = 0

  init(_ mistake: ListingMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    let result = super.perform(call)
    guard result.result >= 0, mistake == .noMergeRight else { return result }
    switch call.kind {
    case .mmap:
      let start = UInt64(result.result)
      for page in pages(start, call.length) where page > start { borders.remove(page) }
      borders.insert(start + (call.length + 4095) / 4096 * 4096)
    case .munmap: for page in pages(call.at, call.length) { borders.remove(page) }
    default: break
    }
    return result
  }

  override func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    switch mistake {
    case .mergesAcrossIdentity: joined(start, end) { $0 && $1 }
    case .mergesAcrossCharge: joined(start, end) { !$0 && !$1 }
    case .mergesShared: join(start, end) { $0.isShared && $1.isShared }
    case .noMergeRight: split(inner.mappings(start, end), start, end)
    case .offsetStays:
      inner.mappings(start, end).map {
        var mapping = $0
        mapping.offset = 0
        return mapping
      }
    case .sharedStaysCounted, .splitNotCounted: inner.mappings(start, end)
    }
  }

  override func sizes() -> VerifySizes {
    var sizes = super.sizes()
    mostShared = max(mostShared, sizes.residentShared)
    if mistake == .sharedStaysCounted { sizes.residentShared = mostShared }
    if mistake == .splitNotCounted { sizes.mappings = min(sizes.mappings, 4) }
    return sizes
  }

  /// The listing with private neighbours of equal rights as one where `condition` says so of whether each was
  /// written to.
  private func joined(
    _ start: UInt64, _ end: UInt64, _ condition: (Bool, Bool) -> Bool
  ) -> [VerifyMapping] {
    func isWritten(_ mapping: VerifyMapping) -> Bool {
      written.contains { $0 >= mapping.start && $0 < mapping.end }
    }
    return join(start, end) {
      !$0.isShared && !$1.isShared && condition(isWritten($0), isWritten($1))
    }
  }

  private func join(
    _ start: UInt64, _ end: UInt64, _ condition: (VerifyMapping, VerifyMapping) -> Bool
  ) -> [VerifyMapping] {
    var result: [VerifyMapping] = []
    // What lies outside the windows stays as it is.
    for mapping in inner.mappings(start, end) {
      if let last = result.last, last.end == mapping.start, last.protection == mapping.protection,
        last.end - last.start < 1 << 30, mapping.end - mapping.start < 1 << 30,
        condition(last, mapping)
      {
        result[result.count - 1].end = mapping.end
      } else {
        result.append(mapping)
      }
    }
    return result
  }

  private func split(
    _ mappings: [VerifyMapping], _ start: UInt64, _ end: UInt64
  ) -> [VerifyMapping] {
    var result: [VerifyMapping] = []
    for mapping in mappings {
      var rest = mapping
      for border in borders.filter({ $0 > mapping.start && $0 < mapping.end }).sorted() {
        if border > start { result.append(rest.cut(at: border)) } else { _ = rest.cut(at: border) }
        if border >= end { return result }
      }
      result.append(rest)
    }
    return result
  }
}

extension VerifyMapping {
  /// Takes the part below `border` off and returns it.
  fileprivate mutating func cut(at border: UInt64) -> VerifyMapping {
    var below = self
    below.end = border
    if isShared { offset += border - start }
    start = border
    return below
  }
}
